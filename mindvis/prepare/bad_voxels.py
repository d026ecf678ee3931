"""What preparing does with voxels that carry no signal."""

from typing import Literal, get_args

import numpy as np

from mindvis.common.errors import InputError

BadVoxels = Literal["zero", "drop", "fail"]
POLICIES: tuple[str, ...] = get_args(BadVoxels)


def check_bad(bad: np.ndarray, policy: BadVoxels, where: str) -> None:
    """Raise InputError when all voxels are bad, bool [v], and under the policy "fail" when any is."""
    if policy == "fail" and bad.any():
        raise InputError(
            f"{where}: {int(bad.sum())} of {bad.size} voxels are constant or not finite (first: {int(bad.argmax())}); "
            f"--bad-voxels zero keeps them as zeros, --bad-voxels drop leaves them out"
        )
    if bad.all():
        raise InputError(f"{where}: all {bad.size} voxels are constant or not finite; needs a signal")
