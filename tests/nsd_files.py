"""The Natural Scenes Dataset in the layout of its authors: sessions of 750 trials of a few voxels, few pictures."""

import h5py
import nibabel as nib
import numpy as np
from scipy.io import savemat

GRID = (4, 5, 6)  # x y z
NUM_IMAGES = 560  # pictures of all subjects
PER_SUBJECT = 500  # of which a subject sees so many, three times: two sessions
SHARED = np.array([7, 40, 90, 130])  # from 0


def write_roi(root, subject, name, labels):
    folder = root / "nsddata/ppdata" / subject / "func1pt8mm/roi"
    folder.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(labels.astype(np.float64), np.diag([1.8, 1.8, 1.8, 1])).to_filename(folder / f"{name}.nii.gz")


def write_session(root, subject, number, betas, **create):
    folder = root / "nsddata_betas/ppdata" / subject / "func1pt8mm/betas_fithrf_GLMdenoise_RR"
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"betas_session{number:02d}.hdf5", "w") as file:
        file.create_dataset("betas", data=betas, **create)


def make_design(rng):
    """masterordering [1 1500], subjectim [8 500], sharedix [1 4], all from 1."""
    images = np.stack([rng.permutation(np.setdiff1d(np.arange(NUM_IMAGES), SHARED))[:PER_SUBJECT] for _ in range(8)])
    images[:, : len(SHARED)] = SHARED  # the shared pictures come first for every subject
    order = rng.permutation(np.repeat(np.arange(PER_SUBJECT), 3))
    return {"masterordering": order[None] + 1, "subjectim": images + 1, "sharedix": SHARED[None] + 1}


def write_stimuli(path, num=NUM_IMAGES, side=10, **create):
    """Picture i begins with the colour i // 2, the rest is noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (num, side, side, 3), dtype=np.uint8)
    images[:, 0, 0] = (np.arange(num) // 2 % 256)[:, None]
    with h5py.File(path, "w") as file:
        file.create_dataset("imgBrick", data=images, **create)


def make_study(root, subjects=("subj01",), num_sessions=2, **create):
    """All files of NSD for some subjects. Returns (design, subject -> betas int16 [n z y x], labels of regions)."""
    rng = np.random.default_rng(4)
    design = make_design(rng)
    path = root / "nsddata/experiments/nsd/nsd_expdesign.mat"
    path.parent.mkdir(parents=True)
    savemat(path, design)
    write_stimuli(root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5")
    regions = {
        "nsdgeneral": rng.integers(-1, 2, GRID),
        "prf-visualrois": rng.integers(0, 8, GRID),
        "HCP_MMP1": rng.integers(0, 8, GRID),
    }
    betas = {}
    for subject in subjects:
        for name, labels in regions.items():
            write_roi(root, subject, name, labels)
        responses = rng.normal(60, 400, (num_sessions * 750, *GRID[::-1])).round().astype(np.int16)
        for number in range(num_sessions):
            write_session(root, subject, number + 1, responses[750 * number : 750 * (number + 1)], **create)
        betas[subject] = responses
    return design, betas, regions
