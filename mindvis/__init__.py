"""mindvis: reconstruction of seen images from human fMRI (MinD-Vis, Chen et al., CVPR 2023, arXiv 2211.06956)."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mindvis.decoding.decoder import Decoder

__version__ = "0.1.0"


def load(
    path: str | Path,
    *,
    checkpoint: str = "selected",
    device: str = "auto",
    num_threads: int | None = None,
    fmri_encoder: str | Path | None = None,
    ldm: str | Path | None = None,
) -> "Decoder":
    """A decoder from a run folder, an exported folder or a published file: `mindvis.load(path).decode(fmri)`.

    See `mindvis.decoding.decoder.load`, which this is; torch is imported when it is called.
    """
    from mindvis.decoding import decoder

    return decoder.load(
        path, checkpoint=checkpoint, device=device, num_threads=num_threads, fmri_encoder=fmri_encoder, ldm=ldm
    )
