"""Strict loading of weights into a module, with a report of what matched."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mindvis.common.errors import InputError

NUM_LISTED = 3  # names given in a message before it says how many more there are
WRAPPED = re.compile(r"^(module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.")  # by DataParallel or torch.compile
NUM_PARTS = 8  # parts of a model given in a row of the table


@dataclass(frozen=True)
class LoadReport:
    """Names that matched, that the state lacks, that the module lacks, and positions fitted to another length.

    `dropped` are names in the file that have no use in this module.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def table(self) -> str:
        """One line a group: how many, and where in the model (unet 686, autoencoder 217)."""
        return "\n".join(f"{name:<10} {len(names):>6}  {_parts(names)}".rstrip() for name, names in vars(self).items())

    def check(self, expected_missing: Sequence[str], source: str) -> None:
        """Raises InputError for names missing that do not begin with `expected_missing`, and for unexpected ones."""
        missing = [name for name in self.missing if not name.startswith(tuple(expected_missing))]
        if missing:
            raise InputError(f"{source}: {len(missing)} weights that the model needs are missing: {_listed(missing)}")
        if self.unexpected:
            found = f"{len(self.unexpected)} weights that the model does not have: {_listed(self.unexpected)}"
            raise InputError(f"{source}: {found}")


def unwrapped(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Weights without the prefixes `module.` and `_orig_mod.` of wrapped modules; InputError for two of a name."""
    found = {WRAPPED.sub("", name): tensor for name, tensor in state.items()}
    if len(found) < len(state):
        raise InputError(f"{where} holds the same weights twice, with and without the prefix of a wrapped module")
    return found


def compare(state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, resize: bool = False) -> LoadReport:
    """What of `state` fits into a module whose state is `own`; `resize`: positions may have another length.

    Raises InputError where a shape differs, naming both.
    """
    common = [name for name in own if name in state]
    differing = [name for name in common if state[name].shape != own[name].shape]
    for name in differing:
        if not (resize and _is_resizable(name, state[name], own[name])):
            shapes = f"shape {list(state[name].shape)}, the model needs {list(own[name].shape)}"
            raise InputError(f"weight {name!r}: {shapes}")
    matched = [name for name in common if name not in differing]
    missing = [name for name in own if name not in state]
    return LoadReport(matched, missing, [name for name in state if name not in own], differing)


def load_state(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    expected_missing: Sequence[str] = (),
    resize: Callable[[Tensor, int], Tensor] | None = None,
    source: str = "weights",
) -> LoadReport:
    """Copy `state` into `module`, which keeps its own values for names that begin with one of `expected_missing`.

    `resize(positions, num_patches)` fits positions [1 1+l d] of another length; None: they must have the same one.
    Raises InputError, naming `source`, for other missing names, for unexpected ones, for shapes that differ and for
    values that are not finite; the module is then unchanged.
    """
    own = module.state_dict()
    try:
        report = compare(state, own, resize=resize is not None)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    report.check(expected_missing, source)
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.is_meta and not torch.isfinite(tensor).all():
            raise InputError(f"{source}: weight {name!r} holds NaN or infinite values, finite ones are needed")
    fitted = {name: resize(state[name], own[name].shape[1] - 1) for name in report.resized} if resize else {}
    module.load_state_dict({**state, **fitted}, strict=False, assign=any(tensor.is_meta for tensor in own.values()))
    return report


def _is_resizable(name: str, given: Tensor, own: Tensor) -> bool:
    """Positions [1 1+l d] that differ in l alone."""
    positions = name.rpartition(".")[2] in ("pos_embed", "decoder_pos_embed") and given.ndim == own.ndim == 3
    return positions and given.shape[1] > 1 and (given.shape[0], given.shape[2]) == (own.shape[0], own.shape[2])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NUM_LISTED} more" if len(names) > NUM_LISTED else ""
    return ", ".join(names[:NUM_LISTED]) + more


def _parts(names: Sequence[str]) -> str:
    counts = Counter(name.split(".", maxsplit=1)[0] for name in names)
    listed = [f"{part} {count}" for part, count in list(counts.items())[:NUM_PARTS]]
    return ", ".join(listed + ["..."] * (len(counts) > NUM_PARTS))
