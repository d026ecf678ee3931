"""Data sets from settings: which rows a stage trains on, which it is watched by."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import digest
from mindvis.config.conform import Conform, check_values
from mindvis.config.data import DATASETS, DataConfig
from mindvis.config.schemas import FinetuneLDMConfig, PretextConfig
from mindvis.data import (
    FMRIDataset,
    PairedDataset,
    join_for_pretraining,
    load_bold5000,
    load_god,
    load_god_imagery,
    load_hcp,
    load_mosaic,
    load_npz,
    load_nsd,
)
from mindvis.data.arrays import require_choice
from mindvis.data.pairs import Parts, overlap, swap_categories, to_common_space

# Settings that only these data sets have
NSD = ("average", "stimuli", "min_noise_ceiling")
MOSAIC = (*NSD, "splits", "cache_dir")

PRETEXT_SIDE = 256  # pixels of the pictures of the image-feature pretext, those of GOD

log = logging.getLogger(__name__)

Rows = TypeVar("Rows", bound=FMRIDataset)


def open_pairs(config: DataConfig, patch_size: int) -> Parts:
    """Training, test and, where the data set has such a part, validation pairs.

    Test pictures that are training pictures too are logged. Raises `InputError` for hcp, which shows no images, and for
    an unknown data set.
    """
    opened = _open_swapped if config.reference is None else _in_one_space
    train, test, val = opened(config, patch_size)
    shared = overlap(train, test)
    if shared["also_in_training"]:
        first = ", ".join(map(str, shared["stimuli"][:3])) + ", ..." * (len(shared["stimuli"]) > 3)
        found = f"{shared['also_in_training']} of {shared['test_pictures']} test pictures are training pictures too"
        log.warning("%s: %s (stimulus %s): their scores say nothing about new pictures", config.root, found, first)
    return train, test, val


def _in_one_space(config: DataConfig, patch_size: int) -> Parts:
    """The subjects one by one, each in the voxels of the subject `reference`, who need not be among them."""
    if config.name == "mosaic":
        raise InputError("setting data.reference: the subjects of mosaic have their voxels in common; needed: null")
    names = list(config.subjects) or _own_files(config)
    if not names:
        everybody = _open_parts(config, patch_size)[0].subject
        names = [] if everybody is None else list(dict.fromkeys(everybody.tolist()))
    assert config.reference is not None
    if names == [config.reference]:
        return _open_swapped(config, patch_size)
    parts = {name: _open_swapped(replace(config, subjects=[name]), patch_size) for name in names}
    if config.reference in parts:
        target = parts[config.reference][0]
    else:  # all of it: a share is of the subjects that are decoded
        target = _open_parts(replace(config, subjects=[config.reference], fraction=1.0), patch_size)[0]
    return to_common_space(parts, target, config.reference, config.adapter_rank, config.adapter_steps)


def _open_swapped(config: DataConfig, patch_size: int) -> Parts:
    """The pairs of the files, with pictures of the categories `test_category` moved from training to test."""
    train, test, val = _open_parts(config, patch_size)
    if config.test_category:
        train, test = swap_categories(train, test, config.test_category, config.test_category_seed)
    return train, test, val


def _open_parts(config: DataConfig, patch_size: int) -> Parts:
    options = _options(config, patch_size)
    if config.name == "god":
        return *load_god(config.root, config.subjects, config.roi, scale_test=config.scale_test, **options), None
    if config.name == "bold5000":
        return *load_bold5000(config.root, config.subjects, roi=config.roi, **options), None
    if config.name == "mosaic":
        train, test = load_mosaic(config.root, config.subjects, roi=config.roi, **_of_trials(config, MOSAIC), **options)
        return train, test, None
    if config.name == "nsd":
        return *load_nsd(config.root, config.subjects, config.roi, **_of_trials(config, NSD), **options), None
    if config.name == "npz":
        parts = load_npz(_own_file(config), config.subjects, config.roi, scale=config.scale, **options)
        return parts.train, parts.test, parts.val
    if config.name == "hcp":
        needed = "god, bold5000, mosaic, nsd or npz"
        raise InputError(f"setting data.name is 'hcp', resting-state fMRI without images; needed: {needed}")
    raise InputError(f"setting data.name is {config.name!r}; needed: one of {', '.join(DATASETS)}")


def _options(config: DataConfig, patch_size: int) -> dict[str, Any]:
    """What every loader of pairs takes."""
    names = ("include_single_trials", "pad_mode", "fraction", "fraction_seed")
    return {"patch_size": patch_size, **{name: getattr(config, name) for name in names}}


def _own_files(config: DataConfig) -> list[str]:
    """Subjects of own data that lies in a folder, one file each; [] for anything else."""
    folder = Path(config.root)
    return sorted(path.stem for path in folder.glob("*.npz")) if config.name == "npz" and folder.is_dir() else []


def _own_file(config: DataConfig) -> Path:
    """The file of own data: `root` itself, or that of the one chosen subject in the folder `root`."""
    there = _own_files(config)
    if not there:
        return Path(config.root)
    if len(config.subjects) != 1:
        found = f"{config.root}: a folder of {len(there)} files, one a subject ({', '.join(there[:5])})"
        raise InputError(f"{found}; needed: data.subjects=[one], or data.reference=one for several in one space")
    return Path(config.root) / f"{require_choice(config.subjects[0], there, f'{config.root}: subject')}.npz"


def open_extra(config: DataConfig, split: str, patch_size: int) -> PairedDataset:
    """A split that is neither trained on nor the test set: `imagery` of god, `artificial` pictures of mosaic.

    Raises `InputError` for any other.
    """
    if (config.name, split) == ("god", "imagery"):
        options = _options(config, patch_size) | {"scale_test": config.scale_test}
        return load_god_imagery(config.root, config.subjects, config.roi, **options)
    if (config.name, split) == ("mosaic", "artificial"):
        options = _options(config, patch_size) | _of_trials(config, MOSAIC)
        [artificial] = load_mosaic(config.root, config.subjects, roi=config.roi, parts=[split], **options)
        return artificial
    known = "train, test, imagery (data.name=god) or artificial (data.name=mosaic)"
    raise InputError(f"setting split is {split!r}, data.name is {config.name!r}; needed: {known}")


def saved_data(settings: Mapping[str, Any]) -> DataConfig:
    """The data settings that an earlier run kept; own data had one mean and deviation a subject before `scale` came.

    Raises InputError for what no run can have kept.
    """
    earlier = {"scale": "subject"} if settings.get("name") == "npz" else {}
    source = "data settings that the run kept"
    kept = DataConfig(**Conform(DataConfig, source).settings({**earlier, **settings}))
    check_values(kept, f"{source}: ", "data.")
    return kept


def _of_trials(config: DataConfig, names: tuple[str, ...]) -> dict[str, Any]:
    """The settings `names` that are given; a loader has defaults for the others."""
    return {name: value for name in names if (value := getattr(config, name)) is not None}


def open_pretraining(data: DataConfig, extra: DataConfig | None, patch_size: int) -> FMRIDataset:
    """One or two sources as one data set, brought to the length of the longest (paper, section 3.2)."""
    sources = [_open_fmri(config, patch_size) for config in (data, extra) if config is not None]
    return join_for_pretraining(sources, pad_mode=data.pad_mode)


def open_pretext(
    data: DataConfig, extra: DataConfig | None, patch_size: int, pictures: PretextConfig
) -> tuple[FMRIDataset, np.ndarray | None]:
    """Rows to pretrain on as `open_pretraining`, and the pictures uint8 [m h w 3] that some were recorded under.

    Of rows without a picture `seen` is -1. No pictures where the pretext has no weight. Raises InputError where it has
    one and no source shows pictures.
    """
    sources = [_open_fmri(config, patch_size) for config in (data, extra) if config is not None]
    joined = join_for_pretraining(sources, pad_mode=data.pad_mode)
    if not pictures.weight:
        return joined, None
    paired = [source for source in sources if isinstance(source, PairedDataset)]
    if not paired:
        raise InputError("setting pretext.weight is above 0, but no data shows pictures; needed: extra_data.name=god")
    seen, first = [], 0
    for source in sources:
        if isinstance(source, PairedDataset):
            seen.append(source.stimulus + first)
            first += len(source.stimuli)
        else:
            seen.append(np.full(source.num_rows, -1))
    joined.seen = np.concatenate(seen)
    return joined, np.concatenate([source.with_image_size(PRETEXT_SIDE).stimuli[:] for source in paired])


def choose_tuning_fmri(
    data: DataConfig, which: str, patch_size: int, num_voxels: int, *, single_trials: bool
) -> FMRIDataset:
    """The fMRI that Stage A goes on with (train, test or both), at the length the pretrained model expects.

    `single_trials`: of the test fMRI not only the averages. The published tuning sees both.
    """
    train, test, _ = open_pairs(replace(data, include_single_trials=single_trials and which != "train"), patch_size)
    chosen = {"train": [train], "test": [test], "both": [train, test]}
    if which not in chosen:
        raise InputError(f"setting fmri is {which!r}; needed: train, test or both")
    return join_for_pretraining([source.fitted(num_voxels) for source in chosen[which]])


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
    """Training pairs (augmented), the pairs the checkpoint is selected by, and the test pairs, at `image_size`.

    Pictures that are enlarged for it are logged: the detail that Stage B learns from them is not there.
    """
    assert config.image_size is not None, "the script takes it from the LDM"
    train, test, val = open_pairs(config.data, patch_size)
    side = min(train.stimuli.shape[1:3])
    if side < config.image_size:
        found = f"pictures of {side} pixels, enlarged to {config.image_size}"
        log.warning("%s: %s; a smaller image_size, or an LDM made for it, is faster", config.data.root, found)
    train, val = choose_validation(config, train, test, val)
    train, test = (part.with_image_size(config.image_size) for part in (train, test))
    val = None if val is None else val.with_image_size(config.image_size)
    shares = {name: value for name, value in asdict(config.augment).items() if name != "crops_per_image"}
    pairs = config.context.consistency > 0
    if pairs and not config.augment.sparsify and len(np.unique(train.stimulus)) == train.num_rows:
        found = "setting context.consistency needs repeats: every training row is the only one of its stimulus"
        raise InputError(f"{found}; needed: single trials, augment.sparsify above 0 (two views of a row), or 0")
    return train.with_augmentation(**shares, pairs=pairs), val, test


def choose_validation(
    config: FinetuneLDMConfig, train: PairedDataset, test: PairedDataset, val: PairedDataset | None
) -> tuple[PairedDataset, PairedDataset | None]:
    """Training pairs, and those by which the checkpoint is selected (`config.selection`).

    `last` selects nothing and trains on all; `validation` takes the data set's own validation part, else holds out a
    share `val_fraction` of the training stimuli, drawn from the seed; `test` is as published.
    """
    if config.selection == "last":
        return train, val
    if config.selection == "test":
        return train, test
    if val is not None:
        return train, val
    order = np.random.default_rng(config.seed).permutation(np.unique(train.stimulus))
    held = order[: round(config.trainer.val_fraction * len(order))]
    if not len(held):
        found = f"setting trainer.val_fraction is {config.trainer.val_fraction:g} with selection=validation"
        raise InputError(f"{found}, which holds out none of {len(order)} stimuli; needed: a larger share")
    return _split(train, np.isin(train.stimulus, held))


def data_facts(**datasets: FMRIDataset | None) -> dict:
    """Rows, voxels and a hash of each part of the data, for the manifest; of `train` and `test` also their overlap."""
    facts = {name: _facts(dataset) for name, dataset in datasets.items() if dataset is not None}
    train, test = datasets.get("train"), datasets.get("test")
    if isinstance(train, PairedDataset) and isinstance(test, PairedDataset):
        facts["overlap"] = overlap(train, test)
    return facts


def _open_fmri(config: DataConfig, patch_size: int) -> FMRIDataset:
    """Resting state, or the training trials of paired data."""
    if config.name != "hcp":
        return open_pairs(config, patch_size)[0]
    names = ("num_subjects", "subjects", "frames_per_window", "pad_mode", "cache_dir")
    return load_hcp(config.root, config.roi, patch_size, **{name: getattr(config, name) for name in names})


def _split(dataset: Rows, held: np.ndarray) -> tuple[Rows, Rows | None]:
    if not held.any():
        return dataset, None
    if held.all():
        raise InputError(f"setting trainer.val_fraction holds out all {len(held)} rows; needed: some left for training")
    return dataset.subset(np.flatnonzero(~held)), dataset.subset(np.flatnonzero(held))


def _facts(dataset: FMRIDataset) -> dict:
    first, varies = dataset.fmri[0], np.zeros(dataset.num_voxels, dtype=bool)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, dataset.num_rows, 1024):
            block = dataset.fmri[start : start + 1024]
            varies[(block != first).any(axis=0)] = True
            yield block

    sha256 = digest(blocks())  # read once
    constant = int((~varies).sum())
    return {"rows": dataset.num_rows, "voxels": dataset.num_voxels, "constant_voxels": constant, "sha256": sha256}
