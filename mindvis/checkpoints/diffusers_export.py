"""A tuned decoder as a diffusers folder: UNet, autoencoder and scheduler as diffusers opens them, the rest beside.

`conditioner/` holds what turns fMRI into a context, and the time-step condition, for which a UNet of diffusers has no
place of its own: it takes the condition as `class_labels`, which it adds to the time embedding.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from omegaconf import OmegaConf
from torch import Tensor, nn

from mindvis.checkpoints.diffusers import AUTOENCODER_FOLDERS, CONDITIONER, read_diffusers, write_diffusers_state
from mindvis.checkpoints.own import EXPORTED, envelope, from_envelope, read_safetensors, save_safetensors
from mindvis.checkpoints.sharing import RIDGE_FILE, check_shareable, copy_ridge, export_model, model_card
from mindvis.checkpoints.weights import State, Weights, part
from mindvis.common.errors import InputError
from mindvis.common.files import write_text
from mindvis.common.loading import load_state
from mindvis.config.loading import read_yaml
from mindvis.dc_ldm import FMRIConditioner
from mindvis.dc_ldm.unet import time_condition
from mindvis.sc_mbm import FMRIEncoder

OWN = ("conditioner.", "unet.time_embed_condtion.")  # what diffusers does not know
PARTS = {"unet", *AUTOENCODER_FOLDERS, "scheduler", CONDITIONER, RIDGE_FILE, "README.md"}


class Condition(nn.Module):
    """fMRI -> what a UNet of diffusers takes: `encoder_hidden_states`, and `class_labels` (None: without)."""

    def __init__(self, conditioner: FMRIConditioner, condition: nn.Module | None):
        super().__init__()
        self.conditioner, self.condition = conditioner, condition

    def forward(self, fmri: Tensor) -> tuple[Tensor, Tensor | None]:
        """[b 1 v] -> context [b 77 context_dim], labels [b 4 model_channels]."""
        context = self.conditioner(fmri)
        return context, None if self.condition is None else self.condition(context)[:, 0]


def export_diffusers(
    folder: str | Path,
    weights: Weights,
    *,
    data: Mapping | None = None,
    report: Mapping | None = None,
    source: str | Path | None = None,
) -> list[str]:
    """Write a decoder as a diffusers folder with a model card, and say what; `generate.py run=` takes it too.

    `data`, `report` and `source` are as of `export_model`. Raises InputError for weights that are no decoder or of
    unknown config, for a model that has no form in diffusers, and for a folder that holds something else.
    """
    folder = check_shareable(folder, weights, PARTS)
    settings = weights.settings
    labelled = "identity" if settings["use_time_condition"] else None
    write_diffusers_state(settings["ldm_config"], weights.state_dict, folder, class_embed_type=labelled)
    own = {name: tensor for name, tensor in weights.state_dict.items() if name.startswith(OWN)}
    said = {**envelope(weights), "data": dict(data or {})}
    said["settings"] = {name: value for name, value in settings.items() if name != "ldm_config"}
    save_safetensors(folder / CONDITIONER / EXPORTED[0], own, {"format": "pt"})
    write_text(folder / CONDITIONER / EXPORTED[1], OmegaConf.to_yaml(OmegaConf.create(said)))
    write_text(folder / "README.md", model_card(weights, data or {}, report or {}, form="diffusers"))
    copy_ridge(folder, source)
    return sorted(path.name for path in folder.iterdir())


def exporter(form: str) -> Callable[..., list[str]]:
    """What writes a folder for others in a form of `EXPORTS`."""
    return {"mindvis": export_model, "diffusers": export_diffusers}[form]


def diffusers_weights(folder: Path) -> Weights:
    """Weights of a diffusers folder: a model to start Stage B from, or with a conditioner in it a tuned decoder."""
    config, state = read_diffusers(folder)
    if not (folder / CONDITIONER).is_dir():
        return Weights("label2img", state, config)
    own = _conditioner(folder)
    return Weights("ldm", {**state, **own.state_dict}, {**own.settings, "ldm_config": config}, own.config)


def load_conditioner(folder: str | Path) -> Condition:
    """The conditioner of a folder of `export_diffusers`, in evaluation mode. Raises InputError as `read_diffusers`."""
    own = _conditioner(Path(folder))
    settings, context_dim = own.settings, own.state_dict["conditioner.dim_mapper.weight"].shape[0]
    pooled = settings["global_pool"]
    encoder = FMRIEncoder(**settings["encoder"], global_pool=pooled)
    conditioner = FMRIConditioner(encoder, context_dim=context_dim, global_pool=pooled)
    load_state(conditioner, part(own.state_dict, OWN[0]), source=str(folder))
    condition, state = None, part(own.state_dict, OWN[1])
    if state:
        embedding_dim = state["weight" if pooled else "2.weight"].shape[0]
        condition = time_condition(context_dim, embedding_dim, pooled)
        load_state(condition, state, source=str(folder))
    return Condition(conditioner, condition).eval().requires_grad_(False)


def _conditioner(folder: Path) -> Weights:
    path = folder / CONDITIONER / EXPORTED[0]
    state: State = read_safetensors(path)[0]
    own = from_envelope(state, read_yaml(path.with_name(EXPORTED[1])), path)
    needed = ("encoder", "global_pool", "use_time_condition")
    absent = [name for name in needed if name not in own.settings]
    if absent or "conditioner.dim_mapper.weight" not in own.state_dict:
        found = ", ".join(absent) or "the weights of its projection"
        raise InputError(f"{path}: {found} absent; needed: a folder of export_model.py --format diffusers")
    return own
