"""A tuned decoder, its data and the provenance of its pictures, from settings."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mindvis.checkpoints import build_ldm_from, describe_data, find_ldm, read_weights
from mindvis.common.devices import describe_arithmetic
from mindvis.common.errors import InputError
from mindvis.common.files import sha256
from mindvis.common.plots import reconstruction_grid
from mindvis.config.decoding import GenerateConfig
from mindvis.config.loading import plain
from mindvis.config.schemas import DataConfig, LoggingConfig
from mindvis.data import FMRIDataset, PairedDataset
from mindvis.data.arrays import NpzReader, load_npy
from mindvis.data.images import resize_all
from mindvis.data.open import data_facts, open_extra, open_pairs, saved_data
from mindvis.data.row_format import FMRIFacts
from mindvis.dc_ldm import LatentDiffusion
from mindvis.decoding.decode import OPTIONS, decode, latent_shape_of
from mindvis.decoding.decoder import Decoder
from mindvis.decoding.output import GRID, TRAINING_GRID, ControlledFMRI, control_fmri
from mindvis.training.logging import show_pictures
from mindvis.training.wandb_runs import check_logging

MOST_PIXELS = 4096  # of a side: more is a slip, and fills the memory
# how test fMRI was scaled, as evaluation.checks explains it
NORMALISATION = {"bold5000": "joint", "npz": "train", "mosaic": "train", "nsd": "session"}


def load_decoder(config: GenerateConfig) -> LatentDiffusion:
    """A tuned decoder in evaluation mode, from a run folder, an exported model or a published finetuned.pth."""
    sources = {"fmri_encoder": config.fmri_encoder, "label2img": config.ldm and find_ldm(config.ldm)}
    ldm, _ = build_ldm_from(config.run, checkpoint=config.checkpoint, **sources)
    return ldm.eval()


def open_rows(config: GenerateConfig, decoder: Decoder) -> FMRIDataset:
    """The rows of the file that the setting `fmri` names, without pictures, as the encoder takes them.

    Raises `InputError` for a file that cannot be read, and for rows that do not fit.
    """
    path = Path(config.fmri or "")
    subjects = config.subject
    if path.suffix == ".npz":
        with NpzReader(path) as npz:
            rows = npz.raw("fmri")
            if "subject" in npz and subjects is None:
                subjects = npz.raw("subject").astype(str).tolist()
    else:
        rows = load_npy(path)
    return FMRIDataset(decoder.prepare(rows, scaling=config.scaling, subject=subjects, label=f"{path}: fmri"))


def open_generation(config: GenerateConfig, ldm: LatentDiffusion) -> tuple[PairedDataset, PairedDataset]:
    """Pairs to decode, at the size the decoder works at, and the training pairs.

    The data set is the run's own unless the settings name another. Raises `InputError` where its fMRI is not of the
    length the encoder expects.
    """
    encoder = ldm.conditioner.encoder
    data = config.data or data_of(config.run)
    train, test, _ = open_pairs(data, encoder.patch_size)
    parts = {"train": train, "test": test}
    if config.split not in parts:
        parts[config.split] = open_extra(data, config.split, encoder.patch_size)
    if train.num_voxels != encoder.num_voxels:
        found = f"{data.root}: {train.num_voxels} voxels in ROI {data.roi!r} after padding"
        raise InputError(f"{found}, the encoder of {config.run} expects {encoder.num_voxels}")
    return parts[config.split].with_image_size(picture_size(config.image_size, ldm)), train


def picture_size(setting: object, ldm: LatentDiffusion) -> tuple[int, int]:
    """Height and width of the pictures that the setting `image_size` asks for. Raises InputError."""
    resolution = ldm.autoencoder.encoder.resolution
    if setting is None:
        return resolution, resolution
    sides = setting if isinstance(setting, list) else [setting, setting]
    try:
        height, width = (int(str(side)) for side in sides)
    except ValueError as error:
        needed = "needed: a side in pixels, or [height, width]"
        raise InputError(f"setting image_size is {setting!r}; {needed}") from error
    if max(height, width) > MOST_PIXELS:
        raise InputError(f"setting image_size is {setting!r}; needed: sides of {MOST_PIXELS} pixels at most")
    latent_shape_of(ldm, (height, width))
    return height, width


def open_to_decode(
    config: GenerateConfig, ldm: LatentDiffusion
) -> tuple[FMRIDataset, ControlledFMRI, np.ndarray | None, PairedDataset | None]:
    """What `generate` decodes: the data set or the rows of a file, their fMRI under the control, the mean training row.

    The training pairs come last, where there is a data set.
    The mean is the one that the run keeps; of an earlier run, that of the training rows. Raises `InputError`.
    """
    check_logging(_board_settings(config))  # not only after hours of decoding
    facts = FMRIFacts.from_plain(read_weights(config.run, config.checkpoint).settings.get("fmri"), config.run)
    if config.fmri is not None:
        dataset = open_rows(config, Decoder(ldm, facts, config.run))
        if config.guidance != 1 and facts.mean is None:
            raise InputError(f"setting guidance is {config.guidance}, but {config.run} keeps no mean fMRI; needed: 1")
        return dataset, ControlledFMRI(np.asarray(dataset.fmri), np.arange(dataset.num_rows)), facts.mean, None
    pairs, train = open_generation(config, ldm)
    mean = train.mean_row() if facts.mean is None else facts.mean
    return pairs, control_fmri(pairs, train, config.control, config.seed), mean, train


def generation_provenance(config: GenerateConfig, dataset: FMRIDataset, ldm: LatentDiffusion) -> dict:
    """What generate.json says: settings, data, and how the test set was used before."""
    run = read_run_settings(config.run)
    device = next(ldm.parameters()).device
    machine = describe_arithmetic(device, config.precision, config.matmul_precision) | {"compile": config.compile}
    about = {
        "settings": plain(config),
        "patch_size": ldm.conditioner.encoder.patch_size,
        "stage_a_run": run.get("stage_a", {}).get("run_dir"),
        "ridge_context": ldm.conditioner.ridge is not None,  # the context began as a ridge regression
        "machine": machine,
    }
    if config.fmri is not None:
        file = {"file": config.fmri, "file_sha256": sha256(Path(config.fmri))}
        return about | {"fmri": {**file, **data_facts(rows=dataset)}}
    data = config.data or data_of(config.run)
    as_published = "dataset" in run  # a file of the published code, which tuned Stage A and selected on the test set
    normalisation = NORMALISATION.get(data.name, "separate")
    if data.name == "god" and data.scale_test == "train":
        normalisation = "train"
    use = {
        "stage_a_tuning": _tuning_fmri(run),
        "checkpoint_selection": run.get("selection", "test" if as_published else None),
        "normalisation": normalisation,
    }
    subjects = [] if dataset.subject is None else list(dict.fromkeys(dataset.subject.tolist()))
    facts = {"settings": plain(data), "subjects": subjects, **data_facts(**{config.split: dataset})}
    return about | {"data": facts, "test_set_use": use}


def _tuning_fmri(run: dict) -> str | None:
    """Which fMRI Stage A was tuned on; None where the settings of the run are not known."""
    if not run:
        return None
    stage_a = run.get("stage_a", {})
    seen = stage_a.get("fmri", "test" if "dataset" in run else "none")
    # runs from before this setting saw the averages, unless their data said otherwise
    single_trials = stage_a.get("single_trials", stage_a.get("data", {}).get("include_single_trials", True))
    return seen if single_trials or seen != "test" else "test averages"


def decode_options(config: GenerateConfig, ldm: LatentDiffusion, mean: np.ndarray | None) -> dict[str, Any]:
    """How `decode` is to work, the arguments after its first three; `mean` [v] is the mean training row."""
    chosen = {name: getattr(config, name) for name in (*OPTIONS, "precision")}
    return chosen | {"mean_fmri": mean, "image_size": picture_size(config.image_size, ldm)}


def decode_training(
    ldm: LatentDiffusion, train: PairedDataset | None, config: GenerateConfig, options: Mapping[str, Any]
) -> np.ndarray | None:
    """Grid of `num_training` training stimuli, evenly over the rows, as `decode` decodes them: uint8 [h w 3].

    None for a control, for training rows themselves, for rows of a file, and where none are asked for.
    """
    if train is None or config.control != "none" or config.split != "test" or not config.num_training:
        return None
    rows = np.linspace(0, train.num_rows - 1, min(config.num_training, train.num_rows)).astype(int)
    decoded = decode(ldm, train.fmri[rows], rows.tolist(), **options)
    return reconstruction_grid(resize_all(train.stimuli[train.stimulus[rows]], decoded.shape[2:4]), decoded)


def show_grids(config: GenerateConfig, output: Path, provenance: Mapping[str, Any]) -> None:
    """Show the grids of `output` where the settings say, else where the training of the run showed its pictures."""
    run = Path(config.run)
    trained = (run / "manifest.json").is_file()
    control = "" if config.control == "none" else f"_{config.control}"
    names = {GRID: f"generate/{config.split}{control}", TRAINING_GRID: "generate/training"}
    grids = {name: np.asarray(Image.open(output / file)) for file, name in names.items() if (output / file).is_file()}
    show_pictures(
        _board_settings(config),
        run if trained else output,
        grids,
        stage="generate",
        name=f"{run.name}-generate",
        config={**provenance, "data": provenance.get("data", {}).get("settings")},
        source=run if trained else None,
    )


def _board_settings(config: GenerateConfig) -> LoggingConfig:
    """Where grids are shown: as set, else as the training of the run was; only in files where there was none."""
    if config.logging is not None:
        return config.logging
    trained = (Path(config.run) / "manifest.json").is_file()
    saved = read_run_settings(config.run).get("logging", {}) if trained else {}
    known = {item.name: saved[item.name] for item in fields(LoggingConfig) if item.name in saved}
    return LoggingConfig(**{"wandb": "disabled", **known})


def output_folder(config: GenerateConfig) -> Path:
    """Where the pictures go: as set, else `<run>/decoded`, the controls below it; of a file `<file>_decoded`.

    Those of imagery and of artificial pictures go to `decoded_imagery` and `decoded_artificial`.
    """
    run = Path(config.run)
    name = "decoded" if config.split in ("test", "train") else f"decoded_{config.split}"
    usual = run.with_name(f"{run.stem}_{name}") if run.is_file() else run / name
    folder = Path(config.output) if config.output else usual
    return folder if config.output or config.control == "none" else folder / config.control


def read_run_settings(path: str) -> dict:
    """Settings of the run behind a decoder; under `stage_a` those its encoder came from; {} where unknown."""
    return read_weights(path).config


def data_of(run: str) -> DataConfig:
    """The data settings of a run. Raises `InputError` where it does not say which data it was tuned on."""
    settings = describe_data(read_run_settings(run))
    if not settings.get("name"):
        needed = "needed: data.name=... data.root=..., or fmri=FILE for rows without pictures"
        raise InputError(f"{run}: does not say which data it was tuned on; {needed}")
    return saved_data(settings)
