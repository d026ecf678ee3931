"""scripts/check_data.py on MOSAIC and NSD: complete, incomplete, broken, each with its reason."""

import h5py
import numpy as np
from mosaic_files import needs_glasser, write_mosaic, write_subject
from nsd_files import make_study
from script_runner import run

pytestmark = needs_glasser


def check(root, name, *extra):
    return run("check_data", "--root", root, "--datasets", name, *extra)


def test_mosaic_complete(tmp_path):
    """Trials by split, NaN grayordinates, noise ceilings, stimuli."""
    write_mosaic(tmp_path / "MOSAIC", ["sub-01_NSD", "sub-03_GOD"])
    found = check(tmp_path, "mosaic")
    assert found.status == 0, found.out
    line = "sub-01_NSD: 10 trials (6 train, 4 test) of 7 stimuli, noise ceiling from test repeats, 2 grayordinates NaN"
    assert line in found.out and "NSD: 1 of 8 subjects" in found.out
    assert "a picture of each of 7 stimuli" in found.out


def test_mosaic_incomplete_and_broken(tmp_path):
    """Stimuli that are absent, a list of NaN that is not true, a file that is cut."""
    root = tmp_path / "MOSAIC"
    assert check(tmp_path, "mosaic").status == 1 and "mosaic.csail.mit.edu" in check(tmp_path, "mosaic").out
    write_mosaic(root)
    (root / "stimuli/c.jpg").unlink()
    with h5py.File(root / "sub-01_NSD.hdf5", "a") as file:
        file["nan_indices_all"][0] = 3
    found = check(tmp_path, "mosaic")
    assert found.status == 1 and "1 stimuli have no picture, 'c.jpg' first" in found.out
    assert "nan_indices_all lists 2, 2 are NaN" in found.out
    path = write_subject(root / "sub-02_NSD.hdf5") and root / "sub-02_NSD.hdf5"
    path.write_bytes(path.read_bytes()[:-9000])
    assert check(tmp_path, "mosaic").status == 2


def test_nsd(tmp_path):
    """Sessions, trials and regions; published sizes; a session that is not what it was."""
    make_study(tmp_path / "raw", num_sessions=1)
    assert check(tmp_path, "nsd").status == 1
    assert run("prepare_nsd", tmp_path / "raw", "--out", tmp_path / "NSD").status == 0
    found = check(tmp_path, "nsd", "--any-size")
    assert found.status == 0, found.out
    assert "subj01: 1 sessions, " in found.out and "finite, 0 constant voxels" in found.out
    found = check(tmp_path, "nsd")
    assert found.status == 1 and "subj01: sessions: 1, published 40" in found.out
    path = tmp_path / "NSD/subj01/betas_session01.npy"
    rows = np.load(path)
    rows[3, 3] = np.nan
    np.save(path, rows)
    found = check(tmp_path, "nsd", "--any-size")
    assert found.status == 2 and "1 NaN or infinite" in found.out


def test_the_large_sets_are_checked_only_where_they_are(tmp_path):
    """The default is what the paper uses, and what lies there besides."""
    assert "MOSAIC" not in run("check_data", "--root", tmp_path).out
    (tmp_path / "NSD").mkdir()
    assert "NSD: incomplete" in run("check_data", "--root", tmp_path).out
