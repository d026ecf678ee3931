"""What preparing does with voxels that carry no signal."""

import numpy as np

from mindvis.common.errors import InputError
from mindvis.config.tools import BadVoxels


def check_bad(bad: np.ndarray, policy: BadVoxels, where: str) -> None:
    """Raise InputError when all voxels are bad, bool [v], and under the policy "fail" when any is."""
    if policy == "fail" and bad.any():
        raise InputError(
            f"{where}: {int(bad.sum())} of {bad.size} voxels are constant or not finite (first: {int(bad.argmax())}); "
            f"--bad-voxels zero keeps them as zeros, --bad-voxels drop leaves them out"
        )
    if bad.all():
        raise InputError(f"{where}: all {bad.size} voxels are constant or not finite; needs a signal")
