"""From settings to objects: data sets, networks and modules of every stage. The only place that knows all of them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from mindvis.checkpoints import build_label2img, build_ldm_from, read_label2img, read_mbm, read_weights
from mindvis.config import (
    DataConfig,
    FinetuneLDMConfig,
    GenerateConfig,
    MaskConfig,
    ModelConfig,
    OptimConfig,
    plain,
)
from mindvis.data import FMRIDataset, PairedDataset, join_for_pretraining, load_bold5000, load_god, load_hcp, load_npz
from mindvis.dc_ldm import LatentDiffusion
from mindvis.dc_ldm.module import LDMModule
from mindvis.errors import InputError
from mindvis.sc_mbm import FMRIEncoder, MaskedBrainModel, MBMModule
from mindvis.training.runs import Run, create_run

DATASETS = ("god", "bold5000", "hcp", "npz")
DEMO_LDM = Path(__file__).parent / "assets" / "demo" / "model.ckpt"
ENCODER_SETTINGS = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")

Pairs = tuple[PairedDataset, PairedDataset, PairedDataset | None]


def open_pairs(config: DataConfig, patch_size: int) -> Pairs:
    """Training, test and, where the data set has such a part, validation pairs.

    Raises `InputError` for hcp, which shows no images, and for an unknown data set.
    """
    options = {"patch_size": patch_size, "include_single_trials": config.include_single_trials}
    options |= {"pad_mode": config.pad_mode}
    if config.name == "god":
        return *load_god(config.root, config.subjects, config.roi, scale_test=config.scale_test, **options), None
    if config.name == "bold5000":
        return *load_bold5000(config.root, config.subjects, **options), None
    if config.name == "npz":
        train, test, val = load_npz(config.root, config.subjects, config.roi, **options)
        return train, test, val
    if config.name == "hcp":
        raise InputError("setting data.name is 'hcp', resting-state fMRI without images; needed: god, bold5000 or npz")
    raise InputError(f"setting data.name is {config.name!r}; needed: one of {', '.join(DATASETS)}")


def open_pretraining(data: DataConfig, extra: DataConfig | None, patch_size: int) -> FMRIDataset:
    """One or two sources as one data set, brought to the length of the longest (paper, section 3.2)."""
    sources = [_open_fmri(config, patch_size) for config in (data, extra) if config is not None]
    return join_for_pretraining(sources, pad_mode=data.pad_mode)


def choose_tuning_fmri(data: DataConfig, which: str, network: MaskedBrainModel) -> FMRIDataset:
    """The fMRI that Stage A goes on with (train, test or both), at the length the pretrained model expects."""
    train, test, _ = open_pairs(data, network.patch_size)
    chosen = {"train": [train], "test": [test], "both": [train, test]}
    if which not in chosen:
        raise InputError(f"setting fmri is {which!r}; needed: train, test or both")
    return join_for_pretraining([source.fitted(network.num_voxels) for source in chosen[which]])


def hold_out_tail(dataset: FMRIDataset, fraction: float) -> tuple[FMRIDataset, FMRIDataset | None]:
    """Training rows, and the last `fraction` of every subject's rows: neighbours in time stay on one side."""
    subject = np.zeros(dataset.num_rows) if dataset.subject is None else np.asarray(dataset.subject)
    held = np.zeros(dataset.num_rows, dtype=bool)
    for name in np.unique(subject):
        rows = np.flatnonzero(subject == name)
        held[rows[len(rows) - round(fraction * len(rows)) :]] = True
    return _split(dataset, held)


def open_stage_b(
    config: FinetuneLDMConfig, patch_size: int
) -> tuple[PairedDataset, PairedDataset | None, PairedDataset]:
    """Training pairs (augmented), the pairs the checkpoint is selected by, and the test pairs, at `image_size`."""
    pairs = open_pairs(config.data, patch_size)
    train, val = _choose_validation(config, *pairs)
    sized = [part if part is None else part.with_image_size(config.image_size) for part in (train, val, pairs[1])]
    return sized[0].with_augmentation(**asdict(config.augment)), sized[1], sized[2]


def begin_run(config: object, stage: str) -> Run:
    """The run folder of a training, new or resumed as the settings say."""
    names = ("resume", "resume_override")
    return create_run(config.run_dir, stage=stage, settings=plain(config), **{n: getattr(config, n) for n in names})


def build_mbm_module(network: MaskedBrainModel, mask: MaskConfig, optim: OptimConfig, num_epochs: int) -> MBMModule:
    """Training module of Stage A."""
    settings = {"mask_ratio": mask.mask_ratio, "focus_range": mask.focus_range, "focus_rate": mask.focus_rate}
    rates = {name: value for name, value in asdict(optim).items() if name != "clip"}
    return MBMModule(network, num_epochs=num_epochs, **rates, **settings)


def start_mbm(model: ModelConfig, num_voxels: int, seed: int) -> tuple[MaskedBrainModel, dict]:
    """A masked brain model with weights drawn from `seed`, and its settings."""
    settings = {"num_voxels": num_voxels, **asdict(model)}
    with seeded(seed):
        return MaskedBrainModel(**settings), settings


def build_ldm_module(ldm: LatentDiffusion, config: FinetuneLDMConfig) -> LDMModule:
    """Training module of Stage B."""
    optim = config.optim
    return LDMModule(ldm, lr=optim.lr, weight_decay=optim.weight_decay)


def read_encoder(config: FinetuneLDMConfig) -> tuple[dict, dict | None]:
    """Settings of Stage B's encoder and the Stage A weights it starts from (None: not pretrained)."""
    if config.encoder is None:
        settings, state = asdict(config.model), None
    else:
        settings, state = read_mbm(config.encoder)
    return {name: settings[name] for name in ENCODER_SETTINGS}, state


def build_stage_b(
    config: FinetuneLDMConfig, encoder_settings: dict, state: dict | None
) -> tuple[LatentDiffusion, dict]:
    """Stage B model with its starting weights, and the settings from which it can be built again.

    Weights that no file brings (the projections, the time-step condition) are drawn from the seed.
    """
    flags = {"global_pool": config.global_pool, "use_time_condition": config.use_time_condition}
    path = find_ldm(config.ldm)
    with seeded(config.seed):
        encoder = FMRIEncoder(**encoder_settings, global_pool=config.global_pool)
        if state is not None:
            encoder.load_pretrained(state)
        ldm, _ = build_label2img(path, encoder, **flags)
    return ldm, {"encoder": encoder_settings, **flags, "ldm_config": read_label2img(path)[0]}


def load_decoder(config: GenerateConfig) -> LatentDiffusion:
    """A tuned decoder in evaluation mode, from a run folder, an exported model or a published finetuned.pth."""
    sources = {"fmri_encoder": config.fmri_encoder, "label2img": config.ldm}
    ldm, _ = build_ldm_from(config.run, checkpoint=_which(config), **sources)
    return ldm.eval()


def open_generation(config: GenerateConfig, ldm: LatentDiffusion) -> tuple[PairedDataset, PairedDataset]:
    """Pairs to decode, at the size the decoder works at, and the training pairs.

    The data set is the run's own unless the settings name another. Raises `InputError` where its fMRI is not of the
    length the encoder expects.
    """
    encoder = ldm.conditioner.encoder
    data = config.data or _data_of(config.run)
    train, test, _ = open_pairs(data, encoder.patch_size)
    parts = {"train": train, "test": test}
    if config.split not in parts:
        raise InputError(f"setting split is {config.split!r}; needed: train or test")
    if train.num_voxels != encoder.num_voxels:
        found = f"{data.root}: {train.num_voxels} voxels in ROI {data.roi!r} after padding"
        raise InputError(f"{found}, the encoder of {config.run} expects {encoder.num_voxels}")
    return parts[config.split].with_image_size(ldm.autoencoder.encoder.resolution), train


def generation_provenance(config: GenerateConfig, dataset: PairedDataset) -> dict:
    """What generate.json says: settings, data, and how the test set was used before (DESIGN 10)."""
    run = read_run_settings(config.run)
    data = config.data or _data_of(config.run)
    normalisation = {"bold5000": "joint", "npz": "train"}.get(data.name, "separate")
    if data.name == "god" and data.scale_test == "train":
        normalisation = "train"
    use = {
        "stage_a_tuning": run.get("stage_a", {}).get("fmri", "none") if run else None,
        "checkpoint_selection": run.get("selection"),
        "normalisation": normalisation,
    }
    return {
        "settings": plain(config),
        "data": {"settings": plain(data), **data_facts(**{config.split: dataset})},
        "test_set_use": use,
    }


def output_folder(config: GenerateConfig) -> Path:
    """Where the pictures go: as set, else `<run>/decoded`, the controls below it."""
    folder = Path(config.output) if config.output else Path(config.run) / "decoded"
    return folder if config.output or config.control == "none" else folder / config.control


def place(ldm: LatentDiffusion, device: str, rank: int) -> LatentDiffusion:
    """The decoder on its device: `auto` takes a GPU where there is one, the rank-th of several."""
    if device == "auto":
        device = f"cuda:{rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    try:
        return ldm.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"setting device is {device!r}: {str(error).splitlines()[0]}") from error


def history(config: FinetuneLDMConfig) -> dict:
    """Settings of a Stage B run with, under `stage_a`, those of the run its encoder came from."""
    return {**plain(config), "stage_a": read_weights(config.encoder).config if config.encoder else {}}


def read_run_settings(path: str) -> dict:
    """Settings of the run behind a decoder; under `stage_a` those its encoder came from; {} where unknown."""
    return read_weights(path).config


def find_ldm(path: str) -> Path:
    """Path of the label-to-image model; `demo` is the small one that comes with the package."""
    return DEMO_LDM if path == "demo" else Path(path)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from `seed`, and leave torch's generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def data_facts(**datasets: FMRIDataset | None) -> dict:
    """Rows, voxels and a hash of each part of the data, for the manifest."""
    return {name: _facts(dataset) for name, dataset in datasets.items() if dataset is not None}


def _which(config: GenerateConfig) -> str:
    """Checkpoint of the run to decode with: `selected` is what its own setting `selection` says."""
    if config.checkpoint not in ("selected", "last"):
        raise InputError(f"setting checkpoint is {config.checkpoint!r}; needed: selected or last")
    settings = read_run_settings(config.run)
    return "best" if config.checkpoint == "selected" and settings.get("selection") != "last" else "last"


def _choose_validation(
    config: FinetuneLDMConfig, train: PairedDataset, test: PairedDataset, val: PairedDataset | None
) -> tuple[PairedDataset, PairedDataset | None]:
    """Training pairs, and those by which the checkpoint is selected (`config.selection`).

    `validation` takes the data set's own validation part, else holds out a share `val_fraction` of the training
    stimuli, drawn from the seed; `test` is as published; `last` selects nothing and trains on all.
    """
    if config.selection == "last":
        return train, None
    if config.selection == "test":
        return train, test
    if config.selection != "validation":
        raise InputError(f"setting selection is {config.selection!r}; needed: validation, test or last")
    if val is not None:
        return train, val
    order = np.random.default_rng(config.seed).permutation(np.unique(train.stimulus))
    held = order[: round(config.trainer.val_fraction * len(order))]
    return _split(train, np.isin(train.stimulus, held))


def _data_of(run: str) -> DataConfig:
    settings = read_run_settings(run).get("data")
    if not settings:
        raise InputError(f"{run}: does not say which data it was tuned on; needed: data.name=... data.root=...")
    return DataConfig(**settings)


def _open_fmri(config: DataConfig, patch_size: int) -> FMRIDataset:
    """Resting state, or the training trials of paired data."""
    if config.name != "hcp":
        return open_pairs(config, patch_size)[0]
    options = {"pad_mode": config.pad_mode, "cache_dir": config.cache_dir}
    return load_hcp(config.root, config.roi, patch_size, config.num_subjects, **options)


def _split(dataset: FMRIDataset, held: np.ndarray) -> tuple[FMRIDataset, FMRIDataset | None]:
    if not held.any():
        return dataset, None
    if held.all():
        raise InputError(f"setting trainer.val_fraction holds out all {len(held)} rows; needed: some left for training")
    return dataset.subset(np.flatnonzero(~held)), dataset.subset(np.flatnonzero(held))


def _facts(dataset: FMRIDataset) -> dict:
    digest = hashlib.sha256()
    for start in range(0, dataset.num_rows, 1024):
        digest.update(np.ascontiguousarray(dataset.fmri[start : start + 1024]).tobytes())
    return {"rows": dataset.num_rows, "voxels": dataset.num_voxels, "sha256": digest.hexdigest()}
