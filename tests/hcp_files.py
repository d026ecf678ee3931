"""Real CIFTI and NIfTI files for the tests of prepare_hcp."""

import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, LabelAxis, SeriesAxis
from script_runner import script

LEFT, RIGHT = "CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"
RUN = "100307_rfMRI_REST1_LR_Atlas_MSMAll_hp2000_clean.dtseries.nii"
NAMES = ["???", "L_V1_ROI", "L_V2_ROI", "R_V1_ROI", "R_V2_ROI"]


main = script("prepare_hcp")


def brain(num_vertices=30, medial=3):
    """Two surfaces, each without its first `medial` vertices."""
    vertex = np.arange(medial, num_vertices)
    return BrainModelAxis.from_surface(vertex, num_vertices, LEFT) + BrainModelAxis.from_surface(
        vertex, num_vertices, RIGHT
    )


def labels_of(axis):
    """Label of each grayordinate: the first half of a hemisphere is V1, the second V2."""
    half = len(axis) // 4
    return np.repeat([1, 2, 3, 4], [half, len(axis) // 2 - half] * 2)


def save_cifti(path, data, axes):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Cifti2Image(np.asarray(data, dtype=np.float32), axes)
    image.nifti_header.set_data_dtype(np.float32)
    image.to_filename(path)
    return path


def save_run(path, data, axis=None):
    return save_cifti(path, data, (SeriesAxis(0, 0.72, len(data)), axis or brain()))


def save_dlabel(path, axis=None):
    axis = axis or brain()
    table = {i: (name, (0, 0, 0, 1)) for i, name in enumerate(NAMES)}
    return save_cifti(path, labels_of(axis)[None], (LabelAxis(["areas"], [table]), axis))


def make_study(tmp_path, rng):
    """Two subjects with one run each, and their parcellation."""
    for subject in ("100307", "100408"):
        save_run(tmp_path / "raw" / RUN.replace("100307", subject), 1e4 + 50 * rng.standard_normal((20, len(brain()))))
    save_dlabel(tmp_path / "areas.dlabel.nii")
    return tmp_path


def run(study, *extra):
    rois = [] if "--rois" in extra else ["--rois", "V1", "V2"]
    atlas = [] if "--label-image" in extra else ["--parcellation", str(study / "areas.dlabel.nii")]
    return main([str(study / "raw"), "--out", str(study / "out"), *rois, *atlas, *extra])


def written(study, subject="100307"):
    with np.load(study / "out" / subject / "HCP_visual_voxel.npz") as arrays:
        return dict(arrays)


def make_volumes(tmp_path, rng):
    """One volumetric run and its label image."""
    labels = np.zeros((4, 5, 6), dtype=np.int16)
    labels[1], labels[2] = 1, 3
    affine = np.diag([2.0, 2, 2, 1])
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "labels.nii.gz")
    (tmp_path / "names.txt").write_text("# label name\n1 L_V1\n3,R_V1\n9 V9\n")
    (tmp_path / "raw").mkdir()
    data = rng.standard_normal((4, 5, 6, 20)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "raw" / "sub-01_bold.nii.gz")
    return tmp_path


def run_volumes(study, *extra, rois=("V1",)):
    labels = ["--label-image", str(study / "labels.nii.gz"), "--label-names", str(study / "names.txt")]
    return run(study, "--pattern", "*_bold.nii*", *labels, "--rois", *rois, *extra)
