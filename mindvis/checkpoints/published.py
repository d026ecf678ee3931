"""The three files the authors released, read without running anything in them.

`fmri_encoder.pth` {model, config, ...}, `label2img/model.ckpt` {state_dict, ...} with its `config.yaml` beside it, and
`finetuned.pth` {model_state_dict, config, state}.
"""

from pathlib import Path

from omegaconf import OmegaConf
from torch import Tensor

from mindvis.checkpoints.renaming import dropped_names, import_ldm, import_mbm
from mindvis.checkpoints.weights import DEFAULT_HEADS, Weights, ldm_settings, mbm_settings
from mindvis.common.errors import InputError
from mindvis.common.safe_pickle import load_torch, plain
from mindvis.common.safe_pickle.rules import one_line, reading

STATE_KEYS = {"model_state_dict": "ldm", "state_dict": "label2img", "model": "mbm"}


def load_published(path: str | Path) -> Weights:
    """Weights and settings of a published file; its kind follows from what it holds. Tensors are mapped.

    `num_heads` of an 'ldm', which the file does not name, is the published 16. Raises InputError, naming the file,
    where it is none of the three, damaged, would run code, or lacks what its kind needs.
    """
    path = Path(path)
    return published_weights(load_torch(path), path)


def published_weights(content: object, path: Path) -> Weights:
    """Weights out of the already read content of a published file."""
    key = next((key for key in STATE_KEYS if isinstance(content, dict) and key in content), None)
    if key is None:
        found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{path}: holds {found[:100]}; needed: one of {', '.join(STATE_KEYS)}")
    state = check_state(content[key], f"{path}: {key}")
    with reading(path):
        config = plain(content.get("config", {}))
    config = config if isinstance(config, dict) else {}
    try:
        return _MAKERS[STATE_KEYS[key]](state, config, path)
    except InputError as error:
        message = str(error)
        raise InputError(message if message.startswith(str(path.parent)) else f"{path}: {message}") from error


def read_yaml(path: Path) -> dict:
    """A published config.yaml as a plain dict. Raises InputError where it is absent or no such file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; needed: the config.yaml that was published with model.ckpt")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as error:  # yaml and OmegaConf raise unrelated classes for a malformed file
        raise InputError(f"{path}: not readable as YAML ({one_line(error)})") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise InputError(f"{path}: no section 'model'; needed: the config.yaml that was published with model.ckpt")
    return content


def check_state(state: object, where: str) -> dict[str, Tensor]:
    """A state dict as a plain dict. Raises InputError where it is none or holds other things than tensors."""
    if not isinstance(state, dict) or not state:
        raise InputError(f"{where} is {'empty' if state == {} else type(state).__name__}, a dict of tensors is needed")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(f"{where}[{str(name)[:80]!r}] is a {type(tensor).__name__}, a tensor is needed")
    return dict(state)


def _mbm(state: dict[str, Tensor], config: dict, path: Path) -> Weights:
    heads = [_heads(config, name) for name in ("num_heads", "decoder_num_heads")]
    return Weights("mbm", import_mbm(state), mbm_settings(state, *heads), config)


def _label2img(state: dict[str, Tensor], config: dict, path: Path) -> Weights:
    if not any(name.startswith("model.diffusion_model.") for name in state):
        raise InputError("no weight begins with model.diffusion_model.: not a latent diffusion model")
    settings = read_yaml(path.parent / "config.yaml")
    return Weights("label2img", import_ldm(state), settings, config, dropped_names(state))


def _ldm(state: dict[str, Tensor], config: dict, path: Path) -> Weights:
    ours = import_ldm(state)
    return Weights("ldm", ours, ldm_settings(ours), config, dropped_names(state))


def _heads(config: dict, name: str) -> int:
    heads = config.get(name, DEFAULT_HEADS)
    if type(heads) is not int or heads < 1:
        raise InputError(f"config.{name} is {heads!r}, a positive integer is needed")
    return heads


_MAKERS = {"mbm": _mbm, "label2img": _label2img, "ldm": _ldm}
