"""Stage A: masked brain modelling."""

from mindvis.sc_mbm.loading import LoadReport
from mindvis.sc_mbm.model import FMRIEncoder, MaskedBrainModel, MBMOutput

__all__ = ["FMRIEncoder", "LoadReport", "MBMOutput", "MaskedBrainModel"]
