"""Names of weights in a diffusers folder and here: two numberings of the same layers.

A UNet here is a list of blocks on the way down and one on the way up; there, a list of levels, each with its residual
blocks, transformers and changes of resolution. Names are prefixes of modules, without a dot at the end.
"""

from collections.abc import Mapping

from torch import Tensor

from mindvis.checkpoints.weights import State

UNET_RESIDUAL = {  # ours -> theirs
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
UNET_ENDS = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "middle_block.1": "mid_block.attentions.0",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
CODER_RESIDUAL = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2"}
CODER_RESIDUAL |= {"nin_shortcut": "conv_shortcut"}
CODER_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
CODER_ENDS = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
AUTOENCODER_ENDS = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv", "quantize": "quantize"}
# in the attention of autoencoders that were saved before 2023
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def unet_names(attends: list[bool], num_res_blocks: list[int]) -> dict[str, str]:
    """Prefixes of a UNet, ours -> theirs, from what its levels have."""
    names = dict(UNET_ENDS)
    names |= _below("middle_block.0", "mid_block.resnets.0", UNET_RESIDUAL)
    names |= _below("middle_block.2", "mid_block.resnets.1", UNET_RESIDUAL)
    last = len(attends) - 1
    block = 1
    for level, count in enumerate(num_res_blocks):
        for index in range(count):
            names |= _block(f"input_blocks.{block}", f"down_blocks.{level}", index, attends[level])
            block += 1
        if level < last:
            names[f"input_blocks.{block}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
            block += 1
    block = 0
    for level in reversed(range(last + 1)):
        for index in range(num_res_blocks[level] + 1):
            names |= _block(f"output_blocks.{block}", f"up_blocks.{last - level}", index, attends[level])
            block += 1
        if level > 0:
            place = 2 if attends[level] else 1
            names[f"output_blocks.{block - 1}.{place}.conv"] = f"up_blocks.{last - level}.upsamplers.0.conv"
    return names


def autoencoder_names(attends: list[bool], num_res_blocks: int) -> dict[str, str]:
    """Prefixes of an autoencoder, ours -> theirs."""
    names = dict(AUTOENCODER_ENDS)
    for coder in ("encoder", "decoder"):
        names |= _below(coder, coder, CODER_ENDS)
        for index in (0, 1):
            names |= _below(f"{coder}.mid.block_{index + 1}", f"{coder}.mid_block.resnets.{index}", CODER_RESIDUAL)
        names |= _below(f"{coder}.mid.attn_1", f"{coder}.mid_block.attentions.0", CODER_ATTENTION)
    last = len(attends) - 1
    for level, attend in enumerate(attends):
        down, up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{last - level}"
        names |= _coder_level(f"encoder.down.{level}", down, num_res_blocks, attend)
        names |= _coder_level(f"decoder.up.{level}", up, num_res_blocks + 1, attend)
        names[f"encoder.down.{level}.downsample.conv"] = f"{down}.downsamplers.0.conv"
        names[f"decoder.up.{level}.upsample.conv"] = f"{up}.upsamplers.0.conv"
    return names


def to_theirs(state: Mapping[str, Tensor], names: Mapping[str, str]) -> State:
    """A part of our state dict under the names of a diffusers folder."""
    return {_renamed(name, names): _of_form(name, tensor, 2) for name, tensor in state.items()}


def to_ours(state: Mapping[str, Tensor], names: Mapping[str, str]) -> State:
    """The inverse of `to_theirs`; names without a counterpart stay as they are."""
    back = {theirs: ours for ours, theirs in names.items()}
    renamed = {}
    for name, tensor in state.items():
        words = name.split(".")
        if "attentions" in words and words[-2] in OLD_ATTENTION:
            words[-2] = OLD_ATTENTION[words[-2]]
        renamed[_renamed(".".join(words), back)] = tensor
    return {name: _of_form(name, tensor, 4) for name, tensor in renamed.items()}


def _below(ours: str, theirs: str, layers: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{layer}": f"{theirs}.{other}" for layer, other in layers.items()}


def _block(ours: str, theirs: str, index: int, attend: bool) -> dict[str, str]:
    names = _below(f"{ours}.0", f"{theirs}.resnets.{index}", UNET_RESIDUAL)
    return {**names, f"{ours}.1": f"{theirs}.attentions.{index}"} if attend else names


def _coder_level(ours: str, theirs: str, num_res_blocks: int, attend: bool) -> dict[str, str]:
    names: dict[str, str] = {}
    for index in range(num_res_blocks):
        names |= _below(f"{ours}.block.{index}", f"{theirs}.resnets.{index}", CODER_RESIDUAL)
        if attend:
            names |= _below(f"{ours}.attn.{index}", f"{theirs}.attentions.{index}", CODER_ATTENTION)
    return names


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """The longest prefix of `name` that has a counterpart, exchanged for it."""
    words = name.split(".")
    for count in range(len(words), 0, -1):
        prefix = ".".join(words[:count])
        if prefix in names:
            return ".".join([names[prefix], *words[count:]])
    return name


def _of_form(name: str, tensor: Tensor, num_dims: int) -> Tensor:
    """The maps of an autoencoder's attention as matrices [c c], which they are there, or convolutions [c c 1 1]."""
    words = name.split(".")
    is_map = ".attn" in name and words[0] in ("encoder", "decoder") and words[-2:] != ["norm", "weight"]
    if not is_map or words[-1] != "weight" or tensor.ndim not in (2, 4):
        return tensor
    if num_dims == 4:
        return tensor if tensor.ndim == 4 else tensor[:, :, None, None]
    return tensor[:, :, 0, 0] if tensor.shape[2:] == (1, 1) else tensor
