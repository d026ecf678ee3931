"""Weights in and out: the published files, our own, safetensors, and folders to share."""

from mindvis.checkpoints.builders import blank_module, build_encoder, build_label2img, build_ldm_from, build_mbm
from mindvis.checkpoints.describing import DescribeWeights
from mindvis.checkpoints.files import read_checkpoint, read_safetensors, save_checkpoint, save_safetensors
from mindvis.checkpoints.formats import read_weights, weights_file, write_weights
from mindvis.checkpoints.loading import LoadReport, compare, load_state
from mindvis.checkpoints.published import load_published
from mindvis.checkpoints.reading import complete_ldm, read_label2img, read_ldm, read_mbm
from mindvis.checkpoints.renaming import export_ldm, export_mbm, import_ldm, import_mbm
from mindvis.checkpoints.sharing import describe_data, export_model
from mindvis.checkpoints.weights import Weights

__all__ = [
    "DescribeWeights",
    "LoadReport",
    "Weights",
    "blank_module",
    "build_encoder",
    "build_label2img",
    "build_ldm_from",
    "build_mbm",
    "compare",
    "complete_ldm",
    "describe_data",
    "export_ldm",
    "export_mbm",
    "export_model",
    "import_ldm",
    "import_mbm",
    "load_published",
    "load_state",
    "read_checkpoint",
    "read_label2img",
    "read_ldm",
    "read_mbm",
    "read_safetensors",
    "read_weights",
    "save_checkpoint",
    "save_safetensors",
    "weights_file",
    "write_weights",
]
