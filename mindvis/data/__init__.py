"""Data: the published file layouts, anyone's own data, voxels and images."""

from mindvis.data.bold5000 import load_bold5000
from mindvis.data.datasets import Augmentation, FMRIDataset, PairedDataset
from mindvis.data.god import load_god, load_god_imagery
from mindvis.data.hcp import load_hcp
from mindvis.data.mosaic import load_mosaic
from mindvis.data.nsd import load_nsd
from mindvis.data.own import Splits, load_npz, save_npz
from mindvis.data.pairs import join_for_pretraining
from mindvis.data.voxels import fit_length

__all__ = [
    "Augmentation",
    "FMRIDataset",
    "PairedDataset",
    "Splits",
    "fit_length",
    "join_for_pretraining",
    "load_bold5000",
    "load_god",
    "load_god_imagery",
    "load_hcp",
    "load_mosaic",
    "load_npz",
    "load_nsd",
    "save_npz",
]
