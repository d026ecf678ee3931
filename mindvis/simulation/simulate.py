"""A simulated experiment on a simulated visual cortex, written in the published file layouts.

Several subjects see drawings of known classes; others rest. What is written is read by the ordinary loaders.
Unlike in GOD, test pictures are new pictures of the training classes; the protocol `god` adds those of unseen classes.
"""

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mindvis.common.draws import generator
from mindvis.common.errors import InputError
from mindvis.common.files import staged_folder, write_json, write_npz, write_text
from mindvis.common.progress import Progress
from mindvis.data.hcp import FILE_NAME, VISUAL_CORTEX
from mindvis.simulation.cortex import AREAS, EARLY, OBJECT_AREAS
from mindvis.simulation.experiment import Experiment, Stimuli, Viewing, draw_experiment, responses, resting_run, view
from mindvis.simulation.stimuli import CLASS_NAMES

FIRST_WNID = 90_000_000  # made-up WordNet numbers, beyond the real ones
NUM_RESTING_PATTERNS = 96  # pictures whose evoked patterns come back at rest
RECORD = "simulation.json"  # marks a folder that may be simulated anew
REGIONS = {area: (area,) for area in AREAS} | {"VC": AREAS, "LVC": EARLY, "HVC": OBJECT_AREAS}


def simulate(out_dir: str | Path, experiment: Experiment) -> None:
    """Write `Kamitani/npz` (viewing) and `HCP/npz` (rest) under `out_dir`; the same experiment gives the same bytes.

    Imagined test pictures, where the protocol has them, are a file a subject in `Imagery`, in the layout of own data.

    The folder appears when it is complete. An earlier simulation is replaced; raises InputError for anything else.
    """
    out_dir = Path(out_dir)
    if out_dir.exists() and not (out_dir / RECORD).is_file() and (out_dir.is_file() or any(out_dir.iterdir())):
        raise InputError(f"{out_dir}: is in use and holds no {RECORD}; needed: a new folder, or an earlier simulation")
    with staged_folder(out_dir.with_name(out_dir.name + ".partial")) as staging:  # not only after the work
        stimuli = draw_experiment(experiment)
        _write_viewing(staging / "Kamitani" / "npz", experiment, stimuli)
        _write_resting(staging / "HCP" / "npz", experiment, stimuli)
        write_json(staging / RECORD, {"classes": CLASS_NAMES, **asdict(experiment)})
        shutil.rmtree(out_dir, ignore_errors=True)
        staging.replace(out_dir)


def _write_viewing(root: Path, experiment: Experiment, stimuli: Stimuli) -> None:
    root.mkdir(parents=True)
    train, test = np.split(stimuli.images, [stimuli.num_train])
    write_npz(root / "images_256.npz", {"train_images": train, "test_images": test})
    index = {i: [f"n{FIRST_WNID + i:08d}", name] for i, name in enumerate(CLASS_NAMES)}
    write_json(root / "imagenet_class_index.json", index)
    splits = np.split(stimuli.class_ids, [stimuli.num_train])
    for name, class_ids in zip(("training", "testing"), splits, strict=True):
        rows = (f"{FIRST_WNID + class_id}.{image:06d},1\n" for image, class_id in enumerate(class_ids.tolist()))
        write_text(root / f"imagenet_{name}_label.csv", "".join(rows))
    for subject in Progress(range(1, experiment.num_subjects + 1), desc="viewing subjects"):
        viewing = view(experiment, stimuli, subject)
        write_npz(root / f"sbj_{subject}.npz", _god_arrays(viewing, experiment))
        if viewing.imagery is not None:
            folder = root.parents[1] / "Imagery"
            write_npz(folder / f"sbj_{subject}.npz", _imagery_arrays(viewing, viewing.imagery, stimuli))


def _imagery_arrays(viewing: Viewing, imagery: np.ndarray, stimuli: Stimuli) -> dict[str, np.ndarray]:
    """Training trials that were seen, test trials that were imagined, as own data has them."""
    num_test = len(stimuli.images) - stimuli.num_train
    stimulus = np.arange(stimuli.num_train, len(stimuli.images))
    stimulus = np.concatenate([np.arange(stimuli.num_train), np.repeat(stimulus, len(imagery) // num_test)])
    area = np.repeat(AREAS, viewing.area_sizes)
    return {
        "fmri": np.concatenate([viewing.train, imagery]),
        "images": stimuli.images,
        "split": np.repeat(["train", "test"], [len(viewing.train), len(imagery)]),
        "stimulus": stimulus,
        "class_ids": stimuli.class_ids[stimulus],
        "roi_names": np.array(list(REGIONS)),
        "roi_masks": np.stack([np.isin(area, of) for of in REGIONS.values()]),
    }


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
    for subject in Progress(range(1, experiment.num_resting + 1), desc="resting subjects"):
        rng = generator((experiment.seed, subject, 0), "resting")
        evoked, sizes = responses(experiment, stimuli.features, rng)
        sizes = sizes[: len(VISUAL_CORTEX)]  # V1 to V4 come first
        patterns = evoked[:NUM_RESTING_PATTERNS, : sum(sizes)]
        run = resting_run(patterns, sizes, num_frames=experiment.num_frames, t_r=experiment.t_r, rng=rng)
        parts = np.split(run, np.cumsum(sizes[:-1]), axis=1)
        write_npz(root / f"{100_000 + subject}" / FILE_NAME, dict(zip(VISUAL_CORTEX, parts, strict=True)))
