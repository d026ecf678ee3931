"""scripts/prepare_nsd.py and load_nsd on made-up files of NSD, beside a naive reading of the same files."""

import shutil
from concurrent.futures.process import BrokenProcessPool

import h5py
import numpy as np
import pytest
from mosaic_files import needs_glasser
from nsd_files import GRID, NUM_IMAGES, SHARED, make_design, make_study, write_roi, write_session, write_stimuli
from scipy.io import savemat
from script_runner import assert_one_line, script

from mindvis.common.errors import InputError
from mindvis.data.hdf5 import HDF5Rows
from mindvis.data.nsd import load_nsd, number_of, open_stimuli
from mindvis.data.rows import MappedArray
from mindvis.prepare import nsd as prepare

main = script("prepare_nsd")
PRF = {"V1": (1, 2), "V2": (3, 4), "V3": (5, 6), "hV4": (7,)}


def run(root, *extra):
    return main([str(root / "raw"), "--out", str(root / "out"), *extra])


def naive(design, betas, regions, roi, average, number=0):
    """(training pictures, rows), (test pictures, rows), with plain loops, scaled and padded to patches of 4."""
    inside = np.zeros(GRID, bool)
    chosen = np.zeros(GRID, bool)
    for name in ("nsdgeneral", *PRF):
        labels = regions["nsdgeneral"] if name == "nsdgeneral" else regions["prf-visualrois"]
        mask = np.isin(labels, (1,) if name == "nsdgeneral" else PRF[name])
        inside |= mask
        chosen |= mask & (name in ([roi] if isinstance(roi, str) else roi))
    flat = betas.reshape(len(betas), -1)[:, chosen.transpose(2, 1, 0).ravel()] / np.float32(300)
    for first in range(0, len(flat), 750):
        session = flat[first : first + 750].astype(np.float64)
        flat[first : first + 750] = (session - session.mean(0)) / session.std(0)
    flat = flat.astype(np.float32)
    order = design["masterordering"].ravel() - 1
    shown = [int(design["subjectim"][number, order[i]]) - 1 for i in range(len(flat))]
    flat = np.concatenate([flat, flat[:, : 4 - flat.shape[1] % 4]], axis=1)

    def rows_of(test, mean):
        rows = [i for i, image in enumerate(shown) if (image in SHARED) == test]
        if not mean:
            return [shown[i] for i in rows], flat[rows]
        names = list(dict.fromkeys(shown[i] for i in rows))
        return names, np.stack([flat[[i for i in rows if shown[i] == name]].mean(axis=0) for name in names])

    train, test = rows_of(False, average), rows_of(True, True)
    moments = train[1].astype(np.float64)
    mean, deviation = np.float32(moments.mean()), np.float32(moments.std())
    return [(names, (rows - mean) / deviation) for names, rows in (train, test)]


def test_what_was_found_and_passed_over_is_said(tmp_path, capsys):
    """A second copy, a hidden file and other files beside the sessions; one on a disk that is gone is an error."""
    make_study(tmp_path / "raw")
    folder = tmp_path / "raw/nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"
    for name in ("betas_session01 (1).hdf5", "._betas_session01.hdf5", "R2_session01.nii.gz"):
        (folder / name).write_bytes(b"")
    assert run(tmp_path) == 0
    said = capsys.readouterr().out
    copies, others = "copies of what is beside them", "no betas_session01.hdf5 ..."
    assert "found 1 subjects" in said and "passed over 1: hidden" in said
    assert f"1: {copies} (betas_session01 (1).hdf5)" in said and f"1: {others} (R2_session01.nii.gz)" in said
    (folder / "betas_session02.hdf5").unlink()
    (folder / "betas_session02.hdf5").symlink_to(tmp_path / "unmounted")
    assert run(tmp_path) == 2
    assert "unmounted: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("create", [{}, {"chunks": (1, 6, 5, 4)}, {"chunks": (750, 1, 5, 4), "compression": "gzip"}])
def test_it_is_what_a_naive_reading_gives(tmp_path, create):
    """Rows, pictures, session scores, shared pictures as test; for every way of storing a session."""
    design, betas, regions = make_study(tmp_path / "raw", **create)
    assert run(tmp_path) == 0
    for roi, average in (("nsdgeneral", True), (["V1", "V3"], False)):
        found = load_nsd(tmp_path / "out", ["subj01"], roi=roi, patch_size=4, average=average)
        for part, (names, rows) in zip(found, naive(design, betas["subj01"], regions, roi, average), strict=True):
            assert [number_of(name) for name in part.stimulus_names] == names
            np.testing.assert_array_equal(np.asarray(part.fmri), rows)
            assert [int(part.stimuli[i][0, 0, 0]) for i in part.stimulus[:40]] == [n // 2 % 256 for n in names[:40]]
    assert len(found[1].stimuli) == len(SHARED) and found[1].stimuli.shape[1:] == (10, 10, 3)


def test_subjects_side_by_side_and_their_own_pictures(tmp_path):
    """Trial i of a subject shows its own picture of that place."""
    design, betas, regions = make_study(tmp_path / "raw", ("subj01", "subj03"), 1)
    assert run(tmp_path, "--subjects", "subj01", "subj03") == 0
    train, test = load_nsd(tmp_path / "out", patch_size=4)
    expected = naive(design, betas["subj03"], regions, "nsdgeneral", True, number=2)[0]
    own = train.subject == "subj03"
    assert [number_of(name) for name, is_own in zip(train.stimulus_names, own, strict=True) if is_own] == expected[0]
    np.testing.assert_array_equal(np.asarray(train.fmri)[own], expected[1])
    assert set(test.stimulus_names) <= {f"nsd{i:05d}" for i in SHARED}


@needs_glasser
def test_glasser_areas_and_any_atlas(tmp_path):
    """HCP_MMP1/V2 is label 4 of its atlas, as the parcellation numbers it."""
    _, _, regions = make_study(tmp_path / "raw", num_sessions=1)
    assert run(tmp_path, "--rois", "HCP_MMP1/V2", "prf-visualrois/7") == 0
    train, _ = load_nsd(tmp_path / "out", roi="all", patch_size=4)
    sizes = {name: int(mask.sum()) for name, mask in train.roi_masks.items()}
    assert sizes["HCP_MMP1/V2"] == (regions["HCP_MMP1"] == 4).sum()
    assert sizes["prf-visualrois/7"] == (regions["prf-visualrois"] == 7).sum()


def test_it_goes_on_where_it_was_stopped(tmp_path, capsys):
    """A session that is there is kept; another worker count gives the same."""
    make_study(tmp_path / "raw")
    assert run(tmp_path) == 0
    files = sorted((tmp_path / "out/subj01").glob("betas*.npy"))
    kept, made = files[0].stat().st_mtime_ns, files[1].read_bytes()
    files[1].unlink()
    (tmp_path / "out/subj01/subject.npz").unlink()
    assert run(tmp_path, "--workers", "2") == 0
    assert files[0].stat().st_mtime_ns == kept and files[1].read_bytes() == made
    assert "2 sessions, 1500 trials, 496 training and 4 test pictures" in capsys.readouterr().out


def test_a_killed_worker_is_one_line(tmp_path, capsys, monkeypatch):
    """Out of memory, for instance: no traceback of the pool."""

    def killed(*_):
        raise BrokenProcessPool

    make_study(tmp_path / "raw", num_sessions=1)
    monkeypatch.setattr(prepare.ProcessPoolExecutor, "map", killed)
    assert run(tmp_path, "--workers", "2") == 2
    assert_one_line(capsys, "a worker process was killed (out of memory?); use fewer --workers")


def test_bad_voxels_are_zeros_or_left_out(tmp_path):
    """A constant voxel and one that overflowed."""
    _, betas, regions = make_study(tmp_path / "raw", num_sessions=1)
    inside = np.argwhere((regions["nsdgeneral"] == 1).transpose(2, 1, 0))
    (z, y, x), (z2, y2, x2) = inside[0], inside[3]
    betas["subj01"][:, z, y, x] = 9
    betas["subj01"][5, z2, y2, x2] = np.iinfo(np.int16).max
    write_session(tmp_path / "raw", "subj01", 1, betas["subj01"])
    assert run(tmp_path) == 0
    zeros = load_nsd(tmp_path / "out", patch_size=1)[0]
    shutil.rmtree(tmp_path / "out")
    assert run(tmp_path, "--bad-voxels", "drop") == 0
    assert load_nsd(tmp_path / "out", patch_size=1)[0].num_voxels == zeros.num_voxels - 2
    columns = np.asarray(zeros.fmri)
    assert (columns[:, 0] == columns[0, 0]).all() and (columns[:, 3] == columns[0, 3]).all()


def test_voxels_are_chosen_by_the_repeats_of_training_pictures(tmp_path):
    """Voxels that answer pictures stay, noise goes; the noise ceiling is handed on."""
    design, betas, regions = make_study(tmp_path / "raw")
    inside = np.argwhere((regions["nsdgeneral"] == 1).transpose(2, 1, 0))
    signal = np.random.default_rng(1).normal(0, 1200, NUM_IMAGES)
    order = design["masterordering"].ravel() - 1
    shown = design["subjectim"][0][order] - 1
    for z, y, x in inside[:6]:
        betas["subj01"][:, z, y, x] += signal[shown].astype(np.int16)
    for number in (1, 2):
        write_session(tmp_path / "raw", "subj01", number, betas["subj01"][750 * number - 750 : 750 * number])
    assert run(tmp_path) == 0
    train, _ = load_nsd(tmp_path / "out", patch_size=1, min_noise_ceiling=0.5)
    assert train.num_voxels == 6 + 1 and (train.noise_ceilings["subj01"] > 0.9).all()


@pytest.mark.parametrize(("create", "kind"), [({}, MappedArray), ({"chunks": (1, 10, 10, 3)}, HDF5Rows)])
def test_pictures_stay_in_their_file(tmp_path, create, kind):
    """Mapped where the file keeps them in one piece, else read one at a time; as the file has them, at any size."""
    write_stimuli(tmp_path / "s.hdf5", **create)
    images = open_stimuli(tmp_path / "s.hdf5")
    assert isinstance(images.source, kind) and images.shape == (NUM_IMAGES, 10, 10, 3)
    assert [int(image[0, 0, 0]) for image in images[[3, 500]]] == [1, 250]
    small = images.resized(4)
    assert small.shape == (NUM_IMAGES, 4, 4, 3) and small[7].shape == (4, 4, 3) and small.identity != images.identity


# Malformed: one line each, status 2, and no subject.npz.


def design_with(**changes):
    def damage(raw):
        arrays = make_design(np.random.default_rng(4)) | changes
        arrays = {name: array for name, array in arrays.items() if array is not None}
        savemat(raw / "nsddata/experiments/nsd/nsd_expdesign.mat", arrays)

    return damage


def betas_as(make, **create):
    def damage(raw):
        path = session(raw, 1)
        with h5py.File(path) as file:
            betas = file["betas"][()]
        write_session(raw, "subj01", 1, make(betas), **create)

    return damage


def session(raw, number):
    return raw / f"nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session{number:02d}.hdf5"


def cut(raw):
    session(raw, 2).write_bytes(session(raw, 2).read_bytes()[:-5000])


def other_name(raw):
    with h5py.File(session(raw, 2), "a") as file:
        file.move("betas", "beta")


def pictures_as(make):
    def damage(raw):
        with h5py.File(raw / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", "a") as file:
            images = file.pop("imgBrick") if make is None else file["imgBrick"][()]
            if make is not None:
                del file["imgBrick"]
                file["imgBrick"] = make(images)

    return damage


def roi(name, make):
    return lambda raw: write_roi(raw, "subj01", name, make(np.ones(GRID)))


def many(value, high=1500):
    order = np.tile(np.arange(1, 501), 3)[None]
    order[0, 3] = value
    return order[:, :high]


MALFORMED = {
    "no_design": (lambda raw: (raw / prepare.EXPERIMENT).unlink(), "no such file, needs the design of NSD"),
    "design_no_mat": (lambda raw: (raw / prepare.EXPERIMENT).write_bytes(b"no matlab" * 90), "no readable MATLAB file"),
    "no_sharedix": (design_with(sharedix=None), "no 'sharedix', needs masterordering"),
    "order_from_0": (design_with(masterordering=many(0)), "masterordering spans 0 .. 500"),
    "order_too_high": (design_with(masterordering=many(501)), "needs whole numbers in 1 .. 500"),
    "order_short": (design_with(masterordering=many(1, 800)), "orders 800 trials, 2 sessions have more"),
    "images_overflow": (design_with(subjectim=np.full((8, 500), 73001)), "subjectim spans 73001 .. 73001"),
    "images_fractions": (design_with(subjectim=np.full((8, 500), 1.5)), "needs whole numbers"),
    "images_nan": (design_with(subjectim=np.full((8, 500), np.nan)), "needs finite numbers"),
    "images_cube": (design_with(subjectim=np.full((2, 4, 500), 3)), "needs [subjects pictures]"),
    "few_subjects": (design_with(subjectim=np.full((0, 500), 3)), "subjectim"),
    "no_session": (lambda raw: shutil.rmtree(session(raw, 1).parent), "no such folder, needs betas_session01.hdf5 ..."),
    "session_missing": (lambda raw: session(raw, 1).unlink(), "no betas_session01.hdf5, but one of session 02"),
    "session_truncated": (cut, "betas_session02.hdf5: not readable"),
    "session_no_hdf5": (lambda raw: session(raw, 1).write_bytes(b"x" * 900), "betas_session01.hdf5: not readable"),
    "no_betas": (other_name, "no 'betas', has beta"),
    "int_overflow": (betas_as(lambda b: b.astype(np.int32) * 300), "betas is int32 [750, 6, 5, 4], needs int16"),
    "floats": (betas_as(lambda b: b / 300), "needs int16 [750, 6, 5, 4]"),
    "trial_missing": (betas_as(lambda b: b[:749]), "betas is int16 [749, 6, 5, 4]"),
    "axes_swapped": (betas_as(lambda b: b.transpose(0, 3, 2, 1)), "betas is int16 [750, 4, 5, 6]"),
    "silent": (betas_as(np.zeros_like), "voxels are constant or not finite"),
    "no_roi": (lambda raw: shutil.rmtree(raw / "nsddata/ppdata"), "nsdgeneral.nii.gz: no such file"),
    "roi_empty": (roi("nsdgeneral", np.zeros_like), "region 'nsdgeneral' has no voxel"),
    "roi_fractions": (roi("nsdgeneral", lambda a: a * 0.3), "labels that are no whole numbers"),
    "roi_other_grid": (roi("nsdgeneral", lambda a: a[:3]), "regions of different grids"),
    "no_pictures": (lambda raw: shutil.rmtree(raw / "nsddata_stimuli"), "nsd_stimuli.hdf5: no such file"),
    "no_brick": (pictures_as(None), "no 'imgBrick', has nothing"),
    "brick_floats": (pictures_as(lambda a: a / 255), "imgBrick is float64"),
    "brick_grey": (pictures_as(lambda a: a[..., 0]), "needs uint8 images [n h w 3]"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(tmp_path, capsys, case):
    """It names the file, what was found and what is needed."""
    damage, message = MALFORMED[case]
    make_study(tmp_path / "raw")
    damage(tmp_path / "raw")
    policy = ["--bad-voxels", "fail"] if case == "silent" else []
    assert run(tmp_path, *policy) == 2
    assert_one_line(capsys, message)
    assert not list((tmp_path / "out").rglob("subject.npz")) and not list((tmp_path / "out").rglob("*.tmp"))


def test_other_regions_need_another_folder(tmp_path, capsys):
    """Sessions of other voxels are not mixed."""
    make_study(tmp_path / "raw", num_sessions=1)
    assert run(tmp_path) == 0 and run(tmp_path, "--rois", "V1") == 2
    assert_one_line(capsys, "was prepared with other regions")


def test_unknown_regions_and_sessions(tmp_path, capsys):
    """They say what there is."""
    make_study(tmp_path / "raw", num_sessions=1)
    assert run(tmp_path, "--rois", "V9") == 2
    assert_one_line(capsys, "region 'V9' is unknown, needs nsdgeneral, V1v")
    assert run(tmp_path, "--sessions", "2") == 2
    assert_one_line(capsys, "subj01 has 1 sessions, --sessions is 2")


def test_prepared_files_that_do_not_fit(tmp_path):
    """A session that is absent or of other voxels, a picture that is not there."""
    make_study(tmp_path / "raw")
    assert run(tmp_path) == 0
    write_stimuli(tmp_path / "few.hdf5", num=100)
    with pytest.raises(InputError, match=r"the file of the pictures has 100"):
        load_nsd(tmp_path / "out", stimuli=tmp_path / "few.hdf5")
    np.save(tmp_path / "out/subj01/betas_session02.npy", np.zeros((750, 3), np.float32))
    with pytest.raises(InputError, match=r"is float32 \[750, 3\], needs float32"):
        load_nsd(tmp_path / "out")
    (tmp_path / "out/subj01/betas_session02.npy").unlink()
    with pytest.raises(InputError, match=r"betas_session02.npy: no such file"):
        load_nsd(tmp_path / "out")
