"""Stage A at work on rows it has not seen."""

import numpy as np
import torch
from matplotlib.figure import Figure

from mindvis.common.errors import InputError
from mindvis.common.plots import PAPER_DPI, masked_reconstruction_plot
from mindvis.inspection.hidden_voxels import open_held_out


@torch.no_grad()
def masked_figure(run: str, *, checkpoint: str = "best", num_rows: int = 3, seed: int = 0) -> Figure:
    """Rows a pretraining held out: the fMRI, what the encoder saw, the reconstruction with its correlation.

    The correlation is that of the hidden voxels; the mask follows from `seed`. Raises InputError for a run that held
    out no rows, or that is none of pretrain_mbm.
    """
    if num_rows < 1:
        raise InputError(f"setting num_rows is {num_rows}; needed: at least 1")
    trained, network, _, held_out = open_held_out(run, checkpoint)
    rows = np.linspace(0, held_out.num_rows - 1, min(num_rows, held_out.num_rows)).round().astype(int)
    fmri = torch.from_numpy(np.stack([np.asarray(held_out.fmri[int(row)]) for row in rows]).astype(np.float32))  # [n v]
    noise = torch.rand(len(rows), network.num_patches, generator=torch.Generator().manual_seed(seed))  # [n l]
    out = network(fmri[:, None], trained.mask.mask_ratio, noise)
    arrays = (fmri.numpy(), out.mask.numpy(), network.unpatchify(out.reconstruction).numpy())
    figure = masked_reconstruction_plot(*arrays, titles=[f"held-out row {row}" for row in rows])
    for axis in figure.axes[-3:]:
        axis.set_xlabel("voxel", fontsize=9)
    figure.set_dpi(PAPER_DPI)
    return figure
