"""The encoder's part of a Stage A state, fitted to an encoder of another length."""

from dataclasses import dataclass

from torch import Tensor

from mindvis.common.errors import InputError
from mindvis.sc_mbm.positions import resize_positions

State = dict[str, Tensor]


@dataclass(frozen=True)
class LoadReport:
    """Keys taken over as they are, taken over with resized positions, and left out (the decoder's)."""

    matched: list[str]
    resized: list[str]
    ignored: list[str]

    def __str__(self) -> str:
        return f"{len(self.matched)} keys matched, {len(self.resized)} resized, {len(self.ignored)} ignored"


def encoder_state(pretrained: State, own: State) -> tuple[State, LoadReport]:
    """State of an encoder: `pretrained` where it has the key, positions resized to the length of `own`.

    The mask token stays `own`: it is the decoder's in Stage A and takes no part in the encoder.
    Raises InputError for missing keys, keys of blocks that `own` lacks, and other shapes.
    """
    wanted = [key for key in own if key != "mask_token"]
    ignored = [key for key in pretrained if key == "mask_token" or key.startswith("decoder_")]
    _check_keys(wanted, [key for key in pretrained if key not in ignored])
    taken = {key: pretrained[key] for key in wanted}
    positions = resize_positions(taken["pos_embed"], own["pos_embed"].shape[1] - 1)
    resized = ["pos_embed"] if positions.shape != taken["pos_embed"].shape else []
    taken["pos_embed"] = positions
    _check_shapes(taken, own)
    return {**own, **taken}, LoadReport([key for key in wanted if key not in resized], resized, ignored)


def _check_keys(wanted: list[str], given: list[str]) -> None:
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in wanted]
    if missing or unexpected:
        raise InputError(
            f"Stage A weights: {len(missing)} keys missing {missing[:3]}, {len(unexpected)} unexpected "
            f"{unexpected[:3]}; the encoder needs exactly its own {len(wanted)}"
        )


def _check_shapes(taken: State, own: State) -> None:
    for key, tensor in taken.items():
        if tensor.shape != own[key].shape:
            raise InputError(
                f"Stage A weight {key!r}: shape {list(tensor.shape)}, the encoder needs {list(own[key].shape)}"
            )
