"""Strict loading of a state into a module, with a report of what matched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mindvis.common.errors import InputError
from mindvis.sc_mbm.positions import resize_positions

NUM_LISTED = 3  # names given in a message before it says how many more there are


@dataclass(frozen=True)
class LoadReport:
    """Names that matched, that the state lacks, that the module lacks, and positions fitted to another length.

    `dropped` are names in the file that no model here uses.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def table(self) -> str:
        """One line a group: how many, and where in the model."""
        rows = [(name, getattr(self, name)) for name in ("matched", "missing", "unexpected", "resized", "dropped")]
        return "\n".join(f"{name:<10} {len(names):>6}  {_parts(names)}".rstrip() for name, names in rows)


def compare(state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, resize: bool = False) -> LoadReport:
    """What of `state` fits into a module whose state is `own`; `resize`: positions may have another length.

    Raises InputError where a shape differs, naming both.
    """
    matched = [name for name in own if name in state and state[name].shape == own[name].shape]
    differing = [name for name in own if name in state and state[name].shape != own[name].shape]
    for name in differing:
        if not (resize and _is_resizable(name, state[name], own[name])):
            shapes = f"shape {list(state[name].shape)}, the model needs {list(own[name].shape)}"
            raise InputError(f"weight {name!r}: {shapes}")
    missing = [name for name in own if name not in state]
    return LoadReport(matched, missing, [name for name in state if name not in own], differing)


def load_state(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    expected_missing: Sequence[str] = (),
    resize: bool = False,
    source: str = "weights",
) -> LoadReport:
    """Copy `state` into `module`, which keeps its own values for names that begin with one of `expected_missing`.

    `resize` fits positions of another length. Raises InputError, naming `source`, for other missing names, for
    unexpected ones, for shapes that differ and for values that are not finite; the module is then unchanged.
    """
    own = module.state_dict()
    try:
        report = compare(state, own, resize=resize)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    check_report(report, expected_missing, source)
    _check_finite(state, source)
    fitted = {name: resize_positions(state[name], own[name].shape[1] - 1) for name in report.resized}
    module.load_state_dict({**state, **fitted}, strict=False, assign=any(tensor.is_meta for tensor in own.values()))
    return report


def check_report(report: LoadReport, expected_missing: Sequence[str], source: str) -> None:
    """Raises InputError for missing names that are not expected to be, and for unexpected ones."""
    missing = [name for name in report.missing if not name.startswith(tuple(expected_missing))]
    if missing:
        raise InputError(f"{source}: {len(missing)} weights that the model needs are missing: {_listed(missing)}")
    if report.unexpected:
        names = report.unexpected
        raise InputError(f"{source}: {len(names)} weights that the model does not have: {_listed(names)}")


def _check_finite(state: Mapping[str, Tensor], source: str) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.is_meta and not torch.isfinite(tensor).all():
            raise InputError(f"{source}: weight {name!r} holds NaN or infinite values, finite ones are needed")


def _is_resizable(name: str, given: Tensor, own: Tensor) -> bool:
    """Positions [1 1+l d] that differ in l alone."""
    positions = name.rpartition(".")[2] in ("pos_embed", "decoder_pos_embed") and given.ndim == own.ndim == 3
    return positions and given.shape[1] > 1 and (given.shape[0], given.shape[2]) == (own.shape[0], own.shape[2])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NUM_LISTED} more" if len(names) > NUM_LISTED else ""
    return ", ".join(names[:NUM_LISTED]) + more


def _parts(names: Sequence[str]) -> str:
    """The parts of the model that names belong to, with their counts: unet 686, autoencoder 217."""
    counts: dict[str, int] = {}
    for name in names:
        part = name.split(".", maxsplit=1)[0]
        counts[part] = counts.get(part, 0) + 1
    listed = [f"{part} {count}" for part, count in list(counts.items())[:8]]
    return ", ".join(listed + ["..."] * (len(counts) > 8))
