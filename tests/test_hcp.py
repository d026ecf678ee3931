"""HCP in the published layout: agreement with the published loader, the mapped cache, flat memory, bad files."""

import io
import json
import os
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mindvis.common.errors import InputError
from mindvis.data import load_hcp
from mindvis.data.hcp import FILE_NAME

ROOT = Path(__file__).parent / "golden" / "raw" / "HCP" / "npz"
WIDTHS = {"V1": 9, "V2": 7, "V3": 5, "V4": 4}


def write_subject(root: Path, name: str, num_frames: int = 40, widths: dict = WIDTHS, seed: int = 0, **changes) -> Path:
    """One simulated run; `changes` replace arrays, None removes one."""
    rng = np.random.default_rng(seed)
    arrays = {roi: rng.normal(50, 3, (num_frames, width)).astype(np.float32) for roi, width in widths.items()} | changes
    (root / name).mkdir(parents=True, exist_ok=True)
    np.savez(root / name / FILE_NAME, **{key: value for key, value in arrays.items() if value is not None})
    return root / name / FILE_NAME


@pytest.fixture
def root(tmp_path) -> Path:
    """Two simulated subjects and a folder that is none."""
    write_subject(tmp_path / "HCP" / "npz", "b", seed=1)
    write_subject(tmp_path / "HCP" / "npz", "a", seed=2)
    (tmp_path / "HCP" / "npz" / "empty").mkdir()
    return tmp_path / "HCP" / "npz"


def test_parity(golden, tmp_path):
    """Windows of the published loader, in the order of the subjects."""
    dataset = load_hcp(ROOT, cache_dir=tmp_path)
    assert np.abs(dataset.fmri - golden("hcp_vc")["out/fmri"][:, 0]).max() < 1e-6
    assert dataset.subject.tolist() == ["100307"] * 6 + ["100408"] * 6


def test_real_run(shared, tmp_path):
    """The real run of 452 volumes gives 45 windows, whole patches, one mean and deviation."""
    fmri = load_hcp(shared / "data" / "HCP" / "npz", cache_dir=tmp_path).fmri
    assert fmri.shape == (45, 1360)
    assert abs(fmri.mean()) < 1e-4 and abs(fmri.std() - 1) < 1e-4


def test_sorted_subjects_and_their_number(root):
    """Folders without the file are passed over; num_subjects is exact; subjects can be named."""
    assert load_hcp(root).subject.tolist() == ["a"] * 4 + ["b"] * 4
    assert load_hcp(root, num_subjects=1).subject.tolist() == ["a"] * 4
    assert load_hcp(root, subjects="b").subject.tolist() == ["b"] * 4
    assert np.array_equal(load_hcp(root, subjects=["b"]).fmri, load_hcp(root).fmri[4:])


def test_regions_and_their_masks(root):
    """Regions side by side in the order asked for; masks leave the padding out."""
    masks = load_hcp(root).roi_masks
    assert {name: int(mask.sum()) for name, mask in masks.items()} == WIDTHS
    assert masks["V4"][21:25].all() and len(masks["V4"]) == 32
    one = load_hcp(root, roi="V2")
    assert one.fmri.shape == (8, 16)
    two = load_hcp(root, roi=["V2", "V4"], patch_size=4)
    assert two.fmri.shape == (8, 12)


def test_subjects_of_unequal_length(root):
    """Shorter subjects are wrapped to the longest, and there is no common region mask then."""
    write_subject(root, "c", widths={"V1": 20, "V2": 20, "V3": 9, "V4": 4})
    dataset = load_hcp(root)
    assert dataset.fmri.shape == (12, 64)
    assert np.array_equal(dataset.fmri[:8, 32:], dataset.fmri[:8, :32])
    assert dataset.roi_masks is None
    assert load_hcp(root, pad_mode="cut").fmri.shape == (12, 16)
    assert not load_hcp(root, pad_mode="constant").fmri[:8, 32:].any()


def test_any_number_of_threads_gives_the_same(root, tmp_path):
    """The order of the rows does not depend on who finishes first."""
    for seed in range(12):
        write_subject(root, f"s{seed:02d}", num_frames=10 * (seed + 1), seed=seed)
    one = load_hcp(root, cache_dir=tmp_path / "one", num_workers=1)
    many = load_hcp(root, cache_dir=tmp_path / "many", num_workers=3)
    assert np.array_equal(one.fmri, many.fmri)
    assert one.fmri.shape[0] == 8 + sum(range(1, 13))


def test_cache_is_mapped_and_used_again(root):
    """The second load reads no source; it lies beside the data."""
    first = load_hcp(root)
    assert isinstance(first.fmri, np.memmap) and not first.fmri.flags.writeable
    stamps = {path: path.stat() for path in root.glob(f"*/{FILE_NAME}")}
    for path, stat in stamps.items():
        path.write_bytes(bytes(stat.st_size))  # same size and time, so the cache still stands for it
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert np.array_equal(load_hcp(root).fmri, first.fmri)
    assert [path.name for path in (root.parent / ".cache").iterdir()] == [Path(first.fmri.filename).parent.name]


@pytest.mark.parametrize("options", [{"patch_size": 4}, {"frames_per_window": 5}, {"pad_mode": "cut"}, {"roi": "V1"}])
def test_cache_knows_its_settings(root, options):
    """Another setting never meets the cache of the first."""
    first = load_hcp(root).fmri
    assert load_hcp(root, **options).fmri.shape != first.shape


def test_cache_notices_changed_sources(root):
    """A rewritten run is converted anew."""
    before = np.array(load_hcp(root).fmri)
    write_subject(root, "a", seed=9)
    os.utime(root / "a" / FILE_NAME, (1, 1))
    after = load_hcp(root).fmri
    assert not np.array_equal(after[:4], before[:4]) and np.array_equal(after[4:], before[4:])


def test_read_only_data_uses_the_users_cache(root, tmp_path, monkeypatch):
    """Nothing is written beside data that is marked read-only."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    root.parent.chmod(0o555)
    try:
        fmri = load_hcp(root).fmri
    finally:
        root.parent.chmod(0o755)
    assert Path(fmri.filename).is_relative_to(tmp_path / "user" / "mindvis")
    assert not (root.parent / ".cache").exists()


def test_no_place_for_the_cache(root, tmp_path):
    """A cache folder that cannot be made is an error that says so."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no cache can be written in .*file/cache; set cache_dir"):
        load_hcp(root, cache_dir=tmp_path / "file" / "cache")


RUN = np.random.default_rng(0).normal(size=(40, 7)).astype(np.float32)
FAULTS = {
    "missing": ({"V3": None}, "a/.*no array 'V3', has V1, V2, V4"),
    "NaN": ({"V2": np.where(RUN > 2, np.nan, RUN)}, "'V2' has .* NaN or infinite of 280"),
    "frames": ({"V2": RUN[:30]}, "'V2' is float32 .30, 7., needs .* f = 40 as in V1"),
    "dimensions": ({"V2": RUN[..., None]}, "'V2' is float32 .40, 7, 1., needs real numbers"),
    "text": ({"V2": RUN.astype(str)}, "needs real numbers"),
    "too short": ({name: RUN[:9] for name in WIDTHS}, "9 frames, needs at least one window of 10"),
    "constant": ({name: np.ones_like(RUN) for name in WIDTHS}, "a/.*constant"),
    "objects": ({"V1": RUN.astype(object)}, "holds Python objects"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_arrays(root, fault):
    """One line that names the subject's file; no half-written cache stays."""
    changes, message = FAULTS[fault]
    write_subject(root, "a", **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_hcp(root)
    assert "\n" not in str(caught.value)
    assert not list((root.parent / ".cache").glob("*"))


def test_broken_files_and_folders(root, tmp_path):
    """Truncated files, no subjects, more subjects than there are."""
    with pytest.raises(InputError, match="num_subjects is 3, needs 1 .. 2"):
        load_hcp(root, num_subjects=3)
    with pytest.raises(InputError, match="subject 'z' is unknown, available: a, b"):
        load_hcp(root, subjects=["z"])
    with pytest.raises(InputError, match="no subject's files"):
        load_hcp(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        load_hcp(tmp_path / "nowhere")
    path = root / "b" / FILE_NAME
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=f"b/{FILE_NAME}: no readable .npz"):
        load_hcp(root)


def test_a_header_that_promises_more_than_the_file_holds(root):
    """A member whose header claims another shape than its bytes is refused before anything is allocated."""
    member = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 9)}
    np.lib.format.write_array_header_1_0(member, header)
    with zipfile.ZipFile(root / "a" / FILE_NAME, "w") as archive:
        for name in WIDTHS:
            archive.writestr(f"{name}.npy", member.getvalue() + bytes(360))
    with pytest.raises(InputError, match="'V1' says shape \\[1000000000, 9\\]"):
        load_hcp(root)


def test_memory_is_flat_in_the_number_of_subjects(tmp_path):
    """Converting and reading ten times the subjects allocates no more than their extra rows would take, by far."""
    peaks = []
    for num_subjects in (4, 40):
        root = tmp_path / str(num_subjects) / "npz"
        for i in range(num_subjects):
            write_subject(root, f"{i:03d}", num_frames=200, widths={name: 250 for name in WIDTHS})
        tracemalloc.start()
        dataset = load_hcp(root, num_workers=1)
        for i in range(len(dataset)):
            dataset[i]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    rows_more = 36 * 20 * 1008 * 4
    assert peaks[1] - peaks[0] < 0.2 * rows_more


MEASURE = """
import json, re, sys, time
from pathlib import Path
from torch.utils.data import DataLoader
from mindvis.data import load_hcp
start = time.perf_counter()
dataset = load_hcp(sys.argv[1], num_workers=2)
next(iter(DataLoader(dataset, batch_size=100)))
seconds = time.perf_counter() - start
if sys.argv[2] == "epoch":
    for _ in DataLoader(dataset, batch_size=100, sampler=[(0, 0, i) for i in range(len(dataset))]): pass
# not ru_maxrss, which a process inherits from the one that started it
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps({"rows": len(dataset), "seconds_to_first_batch": round(seconds, 2), "peak_mb": round(peak)}))
"""


def measure(root: Path, how: str) -> dict:
    """Rows, seconds to the first batch and peak memory of a process of its own."""
    project = Path(__file__).parents[1]
    command = [sys.executable, "-c", MEASURE, str(root), how]
    return json.loads(subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_peak_memory_at_full_size(tmp_path, capsys):
    """200 subjects of 1200 x 4183, converted and read for an epoch, take < 300 MB more than 20; 1000 start in 5 s."""
    run = write_subject(tmp_path, "run", num_frames=1200, widths={"V1": 1618, "V2": 1220, "V3": 684, "V4": 661})
    found = {}
    for num_subjects in (20, 200, 1000):
        root = tmp_path / str(num_subjects) / "npz"
        for i in range(num_subjects):
            (root / f"{i:06d}").mkdir(parents=True)
            (root / f"{i:06d}" / FILE_NAME).symlink_to(run)
        found[f"{num_subjects} converting"] = measure(root, "epoch" if num_subjects < 1000 else "start")
        found[f"{num_subjects} cached"] = measure(root, "start")
    with capsys.disabled():
        sys.stdout.writelines(f"\n{name}: {value}" for name, value in found.items())
    assert found["200 converting"]["peak_mb"] - found["20 converting"]["peak_mb"] < 300
    assert found["1000 cached"]["seconds_to_first_batch"] < 5
    assert found["1000 cached"]["peak_mb"] < 1000


def test_linked_subjects_are_found_and_copies_are_not(root, tmp_path, caplog):
    """A subject on another disk counts; a second copy of a folder is passed over with a word."""
    write_subject(tmp_path / "disk", "c", seed=3)
    (root / "c").symlink_to(tmp_path / "disk" / "c")
    write_subject(root, "a (1)", seed=2)
    with caplog.at_level("INFO"):
        assert sorted(set(load_hcp(root).subject)) == ["a", "b", "c"]
    assert "copies of what is beside them (a (1))" in caplog.text
    assert f"no {FILE_NAME} in it (empty)" in caplog.text


def test_fewer_regions_can_be_used(root):
    """Files without V3 and V4: the error names the setting, and what there is can be taken by name or as a whole."""
    for name in ("a", "b"):
        write_subject(root, name, V3=None, V4=None)
    with pytest.raises(InputError, match=r"no array 'V3', has V1, V2; the setting data.roi takes .*\[V1, V2\], or all"):
        load_hcp(root)
    assert np.array_equal(load_hcp(root, roi=["V1", "V2"]).fmri, load_hcp(root, roi="all").fmri)


def test_narrow_frames_are_scaled_like_wide_ones(root):
    """float16 of the scanner's level: deviation 1."""
    rows = {name: (1e4 + 300 * RUN[:, :width]).astype(np.float16) for name, width in WIDTHS.items() if width <= 7}
    write_subject(root, "a", **rows | {"V1": rows["V2"]})
    fmri = load_hcp(root, subjects="a").fmri
    assert abs(fmri.std() - 1) < 0.05


@pytest.mark.parametrize(
    ("name", "content"), [("rows.npy", b"\x93NUMPY"), ("facts.json", b"[1]"), ("facts.json", b"[" * 10**5)]
)
def test_a_damaged_cache_is_made_again(root, caplog, name, content):
    """A cache that a full disk or a crash cut short is no reason to stop."""
    before = load_hcp(root)
    folder = Path(before.fmri.filename).parent
    rows = np.array(before.fmri)
    (folder / name).write_bytes(content)
    assert np.array_equal(load_hcp(root).fmri, rows)
    assert "a damaged cache, made again" in caplog.text


def test_a_user_without_a_home(root, tmp_path, monkeypatch):
    """No HOME and no passwd entry: the cache lies where it is told to, or beside the data."""

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert len(load_hcp(root, cache_dir=tmp_path / "cache")) == len(load_hcp(root))
