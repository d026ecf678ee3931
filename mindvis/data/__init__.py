"""Data: the published file layouts, anyone's own data, voxels and images."""

from mindvis.data.datasets import Augmentation, FMRIDataset, PairedDataset, join_for_pretraining
from mindvis.data.god import load_god
from mindvis.data.hcp import load_hcp

__all__ = ["Augmentation", "FMRIDataset", "PairedDataset", "join_for_pretraining", "load_god", "load_hcp"]
