"""What options of the scripts may be: known without what it takes to do the work."""

from typing import Literal, get_args

BadVoxels = Literal["zero", "drop", "fail"]  # constant or NaN
Scaling = Literal["train", "run", "none"]  # whose moments z-score a voxel
POLICIES, SCALINGS = get_args(BadVoxels), get_args(Scaling)
HCP_PATTERN = "*_Atlas_MSMAll_hp2000_clean.dtseries.nii"
CHECKPOINTS = ("selected", "best", "last")  # which checkpoint of a run folder
SELECTED = "of a run folder: selected, as its setting `selection` says (a run without it: last), best or last; "
SELECTED += "default: selected, as for generate"
FORMATS = {".safetensors": "safetensors", ".pt": "mindvis", ".pth": "published", ".ckpt": "published"}
FORMS = (*sorted(set(FORMATS.values())), "diffusers")
EXPORTS = ("mindvis", "diffusers")  # forms of a folder for others
