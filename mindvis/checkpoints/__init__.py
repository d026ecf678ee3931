"""Weights in and out: the published files, our own, safetensors, folders to share; and networks that have them."""

from mindvis.checkpoints.builders import (
    DEMO_LDM,
    ENCODER_SETTINGS,
    blank_module,
    build_encoder,
    build_label2img,
    build_ldm_from,
    build_ldm_module,
    build_mbm,
    build_mbm_module,
    build_stage_b,
    find_ldm,
    history,
    image_side,
    read_encoder,
    start_mbm,
)
from mindvis.checkpoints.diffusers import read_diffusers, write_diffusers
from mindvis.checkpoints.formats import (
    complete_ldm,
    read_label2img,
    read_ldm,
    read_mbm,
    read_weights,
    weights_file,
    write_weights,
)
from mindvis.checkpoints.own import (
    DescribeWeights,
    read_checkpoint,
    read_safetensors,
    save_checkpoint,
    save_safetensors,
)
from mindvis.checkpoints.published import (
    decoder_data,
    describe_data,
    export_ldm,
    export_mbm,
    import_ldm,
    import_mbm,
    load_published,
)
from mindvis.checkpoints.sharing import export_model
from mindvis.checkpoints.torch_files import load_torch
from mindvis.checkpoints.weights import Weights
from mindvis.common.loading import LoadReport, compare, load_state

__all__ = [
    "DEMO_LDM",
    "ENCODER_SETTINGS",
    "DescribeWeights",
    "LoadReport",
    "Weights",
    "blank_module",
    "build_encoder",
    "build_label2img",
    "build_ldm_from",
    "build_ldm_module",
    "build_mbm",
    "build_mbm_module",
    "build_stage_b",
    "compare",
    "complete_ldm",
    "decoder_data",
    "describe_data",
    "export_ldm",
    "export_mbm",
    "export_model",
    "find_ldm",
    "history",
    "image_side",
    "import_ldm",
    "import_mbm",
    "load_published",
    "load_state",
    "load_torch",
    "read_checkpoint",
    "read_diffusers",
    "read_encoder",
    "read_label2img",
    "read_ldm",
    "read_mbm",
    "read_safetensors",
    "read_weights",
    "save_checkpoint",
    "save_safetensors",
    "start_mbm",
    "weights_file",
    "write_diffusers",
    "write_weights",
]
