"""The model to look into, its data and regions, from settings."""

from dataclasses import dataclass, replace

import numpy as np

from mindvis.checkpoints import build_mbm, read_weights
from mindvis.common.devices import choose_device
from mindvis.common.errors import InputError
from mindvis.config.decoding import GenerateConfig
from mindvis.config.schemas import DataConfig
from mindvis.config.tools import LookInsideConfig
from mindvis.data import FMRIDataset, PairedDataset
from mindvis.data.open import hold_out_tail, open_pairs, open_pretraining, saved_data
from mindvis.dc_ldm import LatentDiffusion
from mindvis.decoding.open import load_decoder, open_generation
from mindvis.inspection.regions import Regions, find_regions
from mindvis.sc_mbm import MaskedBrainModel
from mindvis.sc_mbm.model import BrainEncoder

NUM_COMPARED = 256  # rows by which padding is told from voxels


@dataclass(frozen=True)
class Opened:
    """A model with the rows it is looked at by: fmri [n v], their places `rows` in `dataset`, and the regions.

    `which` says which rows those are; `settings` are those of the training, {} where unknown.
    """

    model: MaskedBrainModel | LatentDiffusion
    dataset: FMRIDataset
    rows: list[int]
    which: str
    fmri: np.ndarray
    regions: Regions
    data: DataConfig
    settings: dict

    @property
    def encoder(self) -> BrainEncoder:
        return self.model if isinstance(self.model, MaskedBrainModel) else self.model.conditioner.encoder

    @property
    def stage(self) -> str:
        return "A" if isinstance(self.model, MaskedBrainModel) else "B"


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
    num_voxels = model.num_voxels if weights.kind == "mbm" else model.conditioner.encoder.num_voxels
    sized = dataset if dataset.num_voxels == num_voxels else dataset.fitted(num_voxels)
    rows = np.unique(
        np.linspace(0, dataset.num_rows - 1, min(config.num_stimuli, dataset.num_rows)).round().astype(int)
    )
    compared = np.unique(np.r_[rows, np.arange(min(NUM_COMPARED, dataset.num_rows))])
    regions = find_regions(dataset, np.asarray(sized.subset(compared).fmri), config.rois, data.root)
    fmri = np.asarray(sized.subset(rows).fmri)
    return Opened(model, dataset, rows.tolist(), which, fmri, regions, data, weights.config)


def _choose_data(config: LookInsideConfig, trained: dict) -> DataConfig:
    """The data set of the settings, or that of the training; one subject of it where one is named."""
    if config.data is None and not trained.get("data"):
        raise InputError(
            f"{config.run}: does not say which data it was trained on; needed: data.name=... data.root=..."
        )
    data = config.data or saved_data(trained["data"])
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
