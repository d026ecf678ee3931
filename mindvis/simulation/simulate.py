"""A simulated experiment on a simulated visual cortex, written in the published file layouts.

Several subjects see drawings of known classes; others rest. What is written is read by the ordinary loaders.
Unlike in GOD, the test pictures are new pictures of the training classes.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mindvis.common.draws import generator
from mindvis.common.errors import InputError
from mindvis.common.files import write_npz
from mindvis.common.progress import Progress
from mindvis.data.hcp import FILE_NAME, VISUAL_CORTEX
from mindvis.simulation.cortex import (
    AREAS,
    EARLY,
    OBJECT_AREAS,
    Features,
    area_responses,
    picture_features,
    standardise,
)
from mindvis.simulation.experiment import Experiment
from mindvis.simulation.scanner import resting_run, trial_noise, voxel_snr
from mindvis.simulation.stimuli import CLASS_NAMES, draw_stimuli

FIRST_WNID = 90_000_000  # made-up WordNet numbers, beyond the real ones
NUM_RESTING_PATTERNS = 96  # pictures whose evoked patterns come back at rest
RECORD = "simulation.json"  # marks a folder that may be simulated anew
REGIONS = {area: (area,) for area in AREAS} | {"VC": AREAS, "LVC": EARLY, "HVC": OBJECT_AREAS}


@dataclass(frozen=True)
class Stimuli:
    """Pictures uint8 [n h w 3], their classes [n], what the cortex takes from them; training ones come first."""

    images: np.ndarray
    class_ids: np.ndarray
    features: Features
    num_train: int


@dataclass(frozen=True)
class Viewing:
    """One subject's responses, each voxel scaled by the mean and deviation of its training rows."""

    train: np.ndarray  # [n v], repeats averaged
    trials: np.ndarray  # [m*r v], image by image
    averages: np.ndarray  # [m v]
    snr: np.ndarray  # [v], of a single trial
    area_sizes: list[int]


def simulate(out_dir: str | Path, experiment: Experiment) -> None:
    """Write `Kamitani/npz` (viewing) and `HCP/npz` (rest) under `out_dir`; the same experiment gives the same bytes.

    The folder appears when it is complete. An earlier simulation is replaced; raises InputError for anything else.
    """
    out_dir = Path(out_dir)
    if out_dir.exists() and not (out_dir / RECORD).is_file() and (out_dir.is_file() or any(out_dir.iterdir())):
        raise InputError(f"{out_dir}: is in use and holds no {RECORD}; needed: a new folder, or an earlier simulation")
    staging = out_dir.with_name(out_dir.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)  # where nothing can be written, that is found before the work
    stimuli = draw_experiment(experiment)
    _write_viewing(staging / "Kamitani" / "npz", experiment, stimuli)
    _write_resting(staging / "HCP" / "npz", experiment, stimuli)
    _write_json(staging / RECORD, {"classes": CLASS_NAMES, **asdict(experiment)})
    shutil.rmtree(out_dir, ignore_errors=True)
    staging.replace(out_dir)


def draw_experiment(experiment: Experiment) -> Stimuli:
    """All stimuli of an experiment, the classes in turn; test pictures are new ones of the same classes."""
    num_classes, num_train = len(CLASS_NAMES), experiment.train_per_class * len(CLASS_NAMES)
    place = np.concatenate([np.arange(num_train), num_train + np.arange(experiment.num_test)])
    index, class_ids = np.divmod(place, num_classes)
    images = draw_stimuli(experiment.seed, class_ids, index)
    return Stimuli(images, class_ids, picture_features(images, class_ids), num_train)


def view(experiment: Experiment, stimuli: Stimuli, subject: int) -> Viewing:
    """What the scanner measures while one subject (from 1) sees all stimuli."""
    rng = generator((experiment.seed, subject, 0), "viewing")
    signal, sizes = _responses(experiment, stimuli.features, rng)
    snr = voxel_snr(signal.shape[1], experiment.protocol.snr, rng)
    signal *= np.sqrt(snr)  # noise has unit variance
    train, test = np.split(signal, [stimuli.num_train])
    train = train + trial_noise(len(train), sizes, rng) / np.float32(experiment.protocol.train_repeats**0.5)
    repeats = experiment.protocol.test_repeats
    trials = np.repeat(test, repeats, axis=0) + trial_noise(len(test) * repeats, sizes, rng)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    trials = (trials - mean) / deviation
    averages = trials.reshape(len(test), repeats, -1).mean(axis=1)
    return Viewing((train - mean) / deviation, trials, averages, snr, sizes)


def _responses(experiment: Experiment, features: Features, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Unit-variance signals [n v] of a new subject, and the voxels in each area, a few more or less than asked for."""
    sizes = [max(2, round(experiment.voxels[area] * rng.uniform(0.95, 1.05))) for area in AREAS]
    areas = [standardise(area_responses(features, area, n, rng)) for area, n in zip(AREAS, sizes, strict=True)]
    return np.concatenate(areas, axis=1).astype(np.float32), sizes


def _write_viewing(root: Path, experiment: Experiment, stimuli: Stimuli) -> None:
    root.mkdir(parents=True)
    train, test = np.split(stimuli.images, [stimuli.num_train])
    write_npz(root / "images_256.npz", {"train_images": train, "test_images": test})
    _write_json(root / "imagenet_class_index.json", {i: [_wnid(i), name] for i, name in enumerate(CLASS_NAMES)})
    splits = np.split(stimuli.class_ids, [stimuli.num_train])
    for name, class_ids in zip(("training", "testing"), splits, strict=True):
        rows = (f"{FIRST_WNID + class_id}.{image:06d},1\n" for image, class_id in enumerate(class_ids.tolist()))
        (root / f"imagenet_{name}_label.csv").write_text("".join(rows), encoding="utf-8")
    for subject in _progress(experiment.num_subjects, "viewing subjects"):
        write_npz(root / f"sbj_{subject}.npz", _god_arrays(view(experiment, stimuli, subject), experiment))


def _god_arrays(viewing: Viewing, experiment: Experiment) -> dict[str, np.ndarray]:
    """arr_0 .. arr_6 and region masks as the published GOD files have them."""
    repeats = experiment.protocol.test_repeats
    ceiling = np.sqrt(viewing.snr / (viewing.snr + 1 / repeats))  # correlation of an average with the pure signal
    arrays = [
        viewing.train,
        viewing.trials,
        viewing.averages,
        np.arange(len(viewing.train)),
        np.repeat(np.arange(len(viewing.averages)), repeats),
        ceiling,
        viewing.snr,
    ]
    area = np.repeat(AREAS, viewing.area_sizes)
    return {f"arr_{i}": array for i, array in enumerate(arrays)} | {n: np.isin(area, of) for n, of in REGIONS.items()}


def _write_resting(root: Path, experiment: Experiment, stimuli: Stimuli) -> None:
    """Resting subjects are others than the viewing ones, and have the regions of the HCP files only."""
    for subject in _progress(experiment.num_resting, "resting subjects"):
        rng = generator((experiment.seed, subject, 0), "resting")
        evoked, sizes = _responses(experiment, stimuli.features, rng)
        num_voxels = sum(sizes[: len(VISUAL_CORTEX)])  # V1 to V4 come first
        patterns = evoked[:NUM_RESTING_PATTERNS, :num_voxels]
        run = resting_run(
            patterns, sizes[: len(VISUAL_CORTEX)], num_frames=experiment.num_frames, t_r=experiment.t_r, rng=rng
        )
        parts = np.split(run, np.cumsum(sizes[: len(VISUAL_CORTEX) - 1]), axis=1)
        folder = root / f"{100_000 + subject}"
        folder.mkdir(parents=True)
        write_npz(folder / FILE_NAME, dict(zip(VISUAL_CORTEX, parts, strict=True)))


def _wnid(class_id: int) -> str:
    return f"n{FIRST_WNID + class_id:08d}"


def _progress(count: int, label: str) -> Iterator[int]:
    """1 to `count`, under a bar."""
    return iter(Progress(range(1, count + 1), desc=label))


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
