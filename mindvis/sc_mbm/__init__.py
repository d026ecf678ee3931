"""Stage A: masked brain modelling."""

from mindvis.common.loading import LoadReport
from mindvis.sc_mbm.model import FMRIEncoder, MaskedBrainModel, MBMOutput
from mindvis.sc_mbm.module import MBMModule

__all__ = ["FMRIEncoder", "LoadReport", "MBMModule", "MBMOutput", "MaskedBrainModel"]
