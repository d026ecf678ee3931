"""Beta images, one a trial, with what scripts/prepare_betas.py wants beside them."""

import nibabel as nib
import numpy as np
from hcp_files import brain, save_cifti
from nibabel.cifti2 import ScalarAxis
from PIL import Image

GRID = (4, 5, 3)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
# beta file, stimulus, split: two pictures are shown twice
ROWS = [("b0", "a.png", "train"), ("b1", "b.png", "test"), ("b2", "c.png", "train"), ("b3", "b.png", "test")]
ROWS += [("b4", "d.png", "test"), ("b5", "a.png", "train"), ("b6", "e.png", "val")]


def save_nifti(path, data, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, affine).to_filename(path)


def write_table(path, rows=ROWS, suffix=".nii.gz", header=("onset", "beta_file", "stim_file", "split"), end="\t"):
    lines = [end.join(header)] + [end.join([str(i), row[0] + suffix, *row[1:]]) for i, row in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n")


def save_dscalars(folder, betas, axis=None):
    for (name, _, _), row in zip(ROWS, betas, strict=True):
        axes = (ScalarAxis(["beta"]), axis or brain())
        save_cifti(folder / "cifti" / f"{name}.dscalar.nii", row[None], axes)


def make_study(folder, rng):
    """Volumes with a mask and an atlas, CIFTI images on the surfaces of the HCP, tables, pictures; gives [n x y z]."""
    betas = rng.standard_normal((len(ROWS), *GRID)).astype(np.float32) * 3 + 1
    betas[:, 1, 1, 1] = 5
    for (name, _, _), data in zip(ROWS, betas, strict=True):
        save_nifti(folder / "betas" / f"{name}.nii.gz", data)
    mask = np.zeros(GRID, np.uint8)
    mask[1:3, 1:4] = 1
    save_nifti(folder / "mask.nii.gz", mask)
    labels = np.zeros(GRID, np.int16)
    labels[0], labels[1, 2:] = 3, 7
    save_nifti(folder / "atlas.nii.gz", labels)
    (folder / "atlas.txt").write_text("3 L_V1\n7 V2\n")
    write_table(folder / "trials.tsv")
    axis = brain(num_vertices=32492, medial=0)
    save_dscalars(folder, rng.standard_normal((len(ROWS), len(axis))).astype(np.float32), axis)
    write_table(folder / "cifti.tsv", suffix=".dscalar.nii")
    (folder / "stimuli").mkdir()
    for i, name in enumerate("abcde"):
        Image.new("RGB", (12, 10), (10 * i, 5, 7)).save(folder / "stimuli" / f"{name}.png")
    return betas
