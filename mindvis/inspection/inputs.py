"""The model to look into, its data, and which of its voxels belong to which region, from settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mindvis.checkpoints import build_mbm, describe_data, read_weights
from mindvis.common.devices import choose_device
from mindvis.common.errors import InputError
from mindvis.config.decoding import GenerateConfig
from mindvis.config.schemas import DataConfig
from mindvis.config.tools import LookInsideConfig
from mindvis.data import FMRIDataset, PairedDataset
from mindvis.data.open import hold_out_tail, open_pairs, open_pretraining, saved_data
from mindvis.data.regions import padded_mask
from mindvis.dc_ldm import LatentDiffusion
from mindvis.decoding.generation import load_decoder, open_generation
from mindvis.sc_mbm import MaskedBrainModel
from mindvis.sc_mbm.model import BrainEncoder

NUM_COMPARED = 256  # rows that are compared to find padding


@dataclass(frozen=True)
class Regions:
    """Regions to look at: `masks` name -> boolean [v] without padding; `padding` boolean [v]; `alike` int [v].

    `alike` is the first voxel with the same values in every row: the original of a wrap-padded one.
    """

    masks: dict[str, np.ndarray]
    padding: np.ndarray
    alike: np.ndarray

    def with_copies(self, name: str) -> np.ndarray:
        """A region and the padding copied from it, boolean [v]: what must be hidden for the region to be hidden."""
        mask = self.masks[name]
        return mask | (self.padding & mask[self.alike])


@dataclass(frozen=True)
class Opened:
    """A model with the rows it is looked at by: fmri [n v], their places `rows` in `dataset`, and the regions.

    `which` says which rows those are; `settings` are those of the training, {} where unknown.
    """

    model: Any  # MaskedBrainModel or LatentDiffusion
    dataset: Any  # FMRIDataset, with pictures for Stage B
    rows: list[int]
    which: str
    fmri: np.ndarray
    regions: Regions
    data: DataConfig
    settings: dict

    @property
    def encoder(self) -> BrainEncoder:
        return encoder_of(self.model)

    @property
    def stage(self) -> str:
        return "A" if isinstance(self.model, MaskedBrainModel) else "B"


def encoder_of(model: MaskedBrainModel | LatentDiffusion) -> BrainEncoder:
    """What encodes the fMRI: a Stage A model itself, or the encoder in a Stage B conditioner."""
    return model if isinstance(model, MaskedBrainModel) else model.conditioner.encoder


def open_model(config: LookInsideConfig) -> Opened:
    """Model, rows and regions as the settings say. Raises InputError where weights, data or regions are missing."""
    if config.num_stimuli < 2:
        raise InputError(f"setting num_stimuli is {config.num_stimuli}; needed: at least 2, for the intervals")
    weights = read_weights(config.run)
    if weights.kind == "label2img":
        raise InputError(f"{config.run}: holds a label-to-image LDM, without fMRI encoder; needed: Stage A or Stage B")
    data = _choose_data(config, weights.config)
    opened = _open_stage_a if weights.kind == "mbm" else _open_stage_b
    model, dataset, which = opened(config, data, weights.config)
    num_voxels = encoder_of(model).num_voxels
    sized = dataset if dataset.num_voxels == num_voxels else dataset.fitted(num_voxels)
    places = np.linspace(0, dataset.num_rows - 1, min(config.num_stimuli, dataset.num_rows))
    rows = np.unique(places.round().astype(int))
    compared = np.unique(np.r_[rows, np.arange(min(NUM_COMPARED, dataset.num_rows))])
    regions = find_regions(dataset, np.asarray(sized.subset(compared).fmri), config.rois, data.root)
    fmri = np.asarray(sized.subset(rows).fmri)
    return Opened(model, dataset, rows.tolist(), which, fmri, regions, data, weights.config)


def _choose_data(config: LookInsideConfig, trained: dict) -> DataConfig:
    """The data set of the settings, or that of the training; one subject of it where one is named."""
    known = describe_data(trained)
    if config.data is None and not known.get("name"):
        found = f"{config.run}: does not say which data it was trained on"
        raise InputError(f"{found}; needed: data.name=... data.root=...")
    data = config.data or saved_data(known)
    return data if config.subject is None else replace(data, subjects=[config.subject])


def _open_stage_a(
    config: LookInsideConfig, data: DataConfig, trained: dict
) -> tuple[MaskedBrainModel, FMRIDataset, str]:
    """The masked brain model and rows it has not seen in pretraining: held-out windows, or test rows."""
    model, _ = build_mbm(config.run, checkpoint="best" if config.checkpoint == "selected" else config.checkpoint)
    model = model.eval().to(choose_device(config.device))
    if data.name != "hcp":
        return model, open_pairs(data, model.patch_size)[1], "test rows"
    windows = open_pretraining(data, None, model.patch_size)
    own = config.data is None
    _, held_out = hold_out_tail(windows, trained.get("trainer", {}).get("val_fraction", 0.0) if own else 0.0)
    return model, held_out or windows, "windows" if held_out is None else "held-out windows"


def _open_stage_b(
    config: LookInsideConfig, data: DataConfig, trained: dict
) -> tuple[LatentDiffusion, PairedDataset, str]:
    """The decoder and its test rows."""
    names = ("run", "checkpoint", "device", "fmri_encoder", "ldm")
    generation = GenerateConfig(**{name: getattr(config, name) for name in names}, data=data)
    ldm = load_decoder(generation).to(choose_device(config.device))
    return ldm, open_generation(generation, ldm)[0], "test rows"


def find_regions(dataset: FMRIDataset, fmri: np.ndarray, rois: Sequence[str] | None, source: str) -> Regions:
    """Regions of a data set over its rows fmri [n v], at the length of the model; None: those that contain no other.

    Raises InputError where regions are unknown or differ among subjects, and for a region that is not there.
    """
    if not dataset.roi_masks:
        raise InputError(f"{source}: {_why_unknown(dataset)}")
    num_voxels = fmri.shape[1]
    masks = {name: padded_mask(mask, num_voxels) for name, mask in dataset.roi_masks.items()}
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    for name in rois or ():
        if name not in masks:
            raise InputError(f"setting rois names {name!r}; needed: some of {', '.join(masks)}")
    seen: dict[bytes, int] = {}
    columns = np.ascontiguousarray(fmri.T)  # [v n]
    alike = np.array([seen.setdefault(column.tobytes(), i) for i, column in enumerate(columns)])
    covered = np.any(list(masks.values()), axis=0)
    repeated = (alike != np.arange(num_voxels)) | (np.ptp(fmri, axis=0) == 0)  # wrapped, or filled with a constant
    return Regions({name: masks[name] for name in rois or _innermost(masks)}, ~covered & repeated, alike)


def _why_unknown(dataset: FMRIDataset) -> str:
    subjects = [] if dataset.subject is None else list(dict.fromkeys(dataset.subject.tolist()))
    if len(subjects) > 1:
        few = ", ".join(subjects[:3]) + (", ..." if len(subjects) > 3 else "")
        return f"no voxel is in one region for all of {len(subjects)} subjects; needed: subject=, one of {few}"
    return "its regions are not known; needed: GOD or HCP files, or own data with roi_names and roi_masks"


def _innermost(masks: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the regions that contain no other: V1 and LOC rather than VC."""

    def contains_other(whole: np.ndarray) -> bool:
        return any((part <= whole).all() and (part != whole).any() for part in masks.values())

    return [name for name, mask in masks.items() if not contains_other(mask)]
