"""Published parameter names <-> ours: prefixes change, tensors do not."""

from collections.abc import Mapping

from torch import Tensor

from mindvis.dc_ldm.schedule import NoiseSchedule

State = dict[str, Tensor]

PREFIXES = {  # published -> ours
    "model.diffusion_model.": "unet.",
    "first_stage_model.": "autoencoder.",
    "cond_stage_model.mae.": "conditioner.encoder.",
    "cond_stage_model.channel_mapper.": "conditioner.channel_mapper.",
    "cond_stage_model.dim_mapper.": "conditioner.dim_mapper.",
}
# The moving average of the UNet's weights, and what the fMRI encoder replaces: the class embedding, or the transformer
# over text or layout.
DROPPED = ("model_ema.", "cond_stage_model.embedding.weight", "cond_stage_model.transformer.")
CLASS_EMBEDDING = {"conditioner.embedding.": "cond_stage_model.embedding."}  # ours -> published
SCHEDULE = frozenset(NoiseSchedule(num_timesteps=2).buffers_published()) | {"lvlb_weights"}


def import_mbm(state: Mapping[str, Tensor]) -> State:
    """Stage A under our names, which are the published ones."""
    return dict(state)


def export_mbm(state: Mapping[str, Tensor]) -> State:
    """Stage A under the published names; the inverse of `import_mbm`."""
    return dict(state)


def import_ldm(state: Mapping[str, Tensor]) -> State:
    """A label-, text- or layout-to-image or a decoding LDM under our names.

    The noise schedule (recomputed where it is needed) and what `dropped_names` gives are left out.
    Names of no known prefix are kept as they are, so that loading reports them.
    """
    kept = {name: tensor for name, tensor in state.items() if name not in SCHEDULE and not name.startswith(DROPPED)}
    return {_rename(name, PREFIXES): tensor for name, tensor in kept.items()}


def export_ldm(state: Mapping[str, Tensor], schedule: NoiseSchedule | None = None) -> State:
    """An LDM under the published names, its noise schedule (default: the published one) among them.

    The inverse of `import_ldm`: `import_ldm(export_ldm(state))` is `state`.
    """
    back = {ours: published for published, ours in PREFIXES.items()} | CLASS_EMBEDDING
    buffers = (schedule or NoiseSchedule()).buffers_published()
    return {**buffers, **{_rename(name, back): tensor for name, tensor in state.items()}}


def dropped_names(state: Mapping[str, Tensor]) -> list[str]:
    """Published names whose weights are not used here: the moving average and the condition fMRI replaces."""
    return [name for name in state if name.startswith(DROPPED)]


def _rename(name: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
