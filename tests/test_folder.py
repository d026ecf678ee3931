"""Folders of decoded pictures that cannot be evaluated: one line that names the file and what is needed."""

import numpy as np
import pytest
from PIL import Image

from mindvis.common.errors import InputError
from mindvis.evaluation.pictures import list_pictures, read_decoded

N, K, SIDE = 4, 3, 16


@pytest.fixture
def run(tmp_path, rng):
    """The arrays that `generate` writes."""
    folder = tmp_path / "run"
    folder.mkdir()
    decoded = rng.integers(0, 256, (N, K, SIDE, SIDE, 3), dtype=np.uint8)
    np.savez(folder / "decoded.npz", decoded=decoded, stimuli=decoded[:, 0], stimulus_ids=np.arange(N), class_ids=[])
    return folder


@pytest.fixture
def folders(tmp_path, rng):
    """A folder `decoded` beside a folder `true`, one picture a stimulus."""
    for name in ("true", "decoded"):
        (tmp_path / name).mkdir()
        for i in range(N):
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_samples_come_in_natural_order(tmp_path, rng):
    """Sample and stimulus 10 come after 9."""
    pictures = rng.integers(0, 256, (11, 11, 8, 8, 3), dtype=np.uint8)
    (tmp_path / "true").mkdir()
    for i, samples in enumerate(pictures):
        Image.fromarray(samples[0]).save(tmp_path / "true" / f"s{i}.png")
        (tmp_path / "decoded" / f"s{i}").mkdir(parents=True)
        for k, sample in enumerate(samples):
            Image.fromarray(sample).save(tmp_path / "decoded" / f"s{i}" / f"{k}.png")
    found = read_decoded(tmp_path / "decoded", tmp_path / "true")
    np.testing.assert_array_equal(found.decoded, pictures)
    assert found.stimulus_ids == [f"s{i}" for i in range(11)]
    np.testing.assert_array_equal(found.flat[11 + 3], pictures[3, 1])


def break_npz(folder, **changes):
    with np.load(folder / "decoded.npz") as file:
        arrays = {k: file[k] for k in file.files} | changes
    np.savez(folder / "decoded.npz", **{k: v for k, v in arrays.items() if v is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoded": None}, "no array 'decoded'"),
        ({"decoded": np.full((N, K, SIDE, SIDE, 3), np.nan)}, "decoded: found float64"),
        ({"decoded": np.zeros((N, K, 8, SIDE, 3), np.uint8)}, "do not belong together"),
        ({"decoded": np.zeros((N + 1, K, SIDE, SIDE, 3), np.uint8)}, "do not belong together"),
        ({"stimuli": np.zeros((N, SIDE, SIDE), np.uint8)}, "stimuli: found uint8"),
        (
            {
                "decoded": np.zeros((1, K, 8, 8, 3), np.uint8),
                "stimuli": np.zeros((1, 8, 8, 3), np.uint8),
                "stimulus_ids": None,
            },
            "at least two",
        ),
        (
            {"decoded": np.zeros((0, K, 8, 8, 3), np.uint8), "stimuli": np.zeros((0, 8, 8, 3), np.uint8)},
            "none of them 0",
        ),
        ({"stimulus_ids": np.arange(N + 1)}, r"need \[4\]"),
    ],
)
def test_bad_arrays_get_one_line(run, changes, message):
    """File, array, what was found, what is needed."""
    break_npz(run, **changes)
    with pytest.raises(InputError, match=message) as error:
        read_decoded(run)
    assert "decoded.npz" in str(error.value) or "run: " in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_files_get_one_line(run, tmp_path):
    """A cut npz, settings that are no JSON, no folder at all."""
    (run / "generate.json").write_text("{")
    with pytest.raises(InputError, match="not readable as JSON"):
        read_decoded(run)
    (run / "generate.json").unlink()
    (run / "decoded.npz").write_bytes((run / "decoded.npz").read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read"):
        read_decoded(run)
    with pytest.raises(InputError, match="no such folder"):
        read_decoded(tmp_path / "absent")


def grey(folder):
    Image.new("L", (SIDE, SIDE)).save(folder / "decoded" / "1.png")


def transparent(folder):
    Image.new("RGBA", (SIDE, SIDE)).save(folder / "decoded" / "1.png")


def other_size(folder):
    Image.new("RGB", (SIDE, SIDE + 1)).save(folder / "decoded" / "1.png")


def missing(folder):
    (folder / "decoded" / "1.png").unlink()


def extra(folder):
    Image.new("RGB", (SIDE, SIDE)).save(folder / "decoded" / "nobody.png")


def unequal(folder):
    Image.new("RGB", (SIDE, SIDE)).save(folder / "decoded" / "1-2.png")


def broken(folder):
    (folder / "decoded" / "1.png").write_bytes(b"not a readable picture")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (grey, r"1.png: a picture of mode L \(grey\), need RGB"),
        (transparent, "mode RGBA"),
        (other_size, "17 x 16 pixels, others 16 x 16"),
        (missing, "no decoded picture of stimulus '1'"),
        (extra, "nobody.png: belongs to no true picture"),
        (unequal, "decoded pictures of stimulus"),
        (broken, "not a readable picture"),
    ],
)
def test_bad_pictures_get_one_line(folders, damage, message):
    """Grey, transparent, of another size, missing, extra, unequal numbers, no picture at all."""
    damage(folders)
    with pytest.raises(InputError, match=message):
        read_decoded(folders / "decoded", folders / "true")


@pytest.mark.parametrize("name", ["figures", "wandb", "shuffled", "mean_fmri", "pictures", "grid"])
def test_any_name_of_a_results_folder_will_do(folders, name):
    """Folders that evaluate makes are passed over inside the results, not where they are the results."""
    (folders / "decoded").rename(folders / name)
    (folders / name / "wandb").mkdir()
    (folders / name / "wandb" / "media.png").write_bytes(b"")
    assert len(read_decoded(folders / name, folders / "true").stimuli) == N


@pytest.mark.parametrize("name", ["figures", "grid", "stimulus"])
def test_any_name_of_a_stimulus_will_do(folders, name):
    """A picture called as an output of evaluate is a stimulus where there is a true one of that name."""
    for folder in ("true", "decoded"):
        (folders / folder / "0.png").rename(folders / folder / f"{name}.png")
    assert name in read_decoded(folders / "decoded", folders / "true").stimulus_ids


def test_files_of_other_systems_are_passed_over(folders):
    """A Mac leaves ._NAME.png beside NAME.png: no picture, and no reason to refuse the folder."""
    for folder in ("true", "decoded"):
        (folders / folder / "._0.png").write_bytes(b"resource fork")
        (folders / folder / ".DS_Store").write_bytes(b"")
    assert len(read_decoded(folders / "decoded", folders / "true").stimuli) == N


def test_names_with_other_digits_and_links(tmp_path, rng):
    """A superscript in a name is no number; decoded pictures behind a link to a folder are found."""
    names = ("10", "10\u00b2", "9")
    for name in names:
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        for path in (tmp_path / "true" / f"{name}.png", tmp_path / "disk" / name / "0.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (tmp_path / "decoded").mkdir()
    for name in names:
        (tmp_path / "decoded" / name).symlink_to(tmp_path / "disk" / name)
    found = read_decoded(tmp_path / "decoded", tmp_path / "true")
    assert sorted(found.stimulus_ids) == sorted(names)
    assert np.array_equal(found.decoded[:, 0], found.stimuli)


def test_what_is_no_picture_is_passed_over_with_a_word(tmp_path, caplog):
    """Notes and files of the system beside the pictures."""
    caplog.set_level("INFO", "mindvis")
    Image.new("RGB", (8, 8)).save(tmp_path / "cat.png")
    for name in ("notes.txt", ".DS_Store", "._cat.png"):
        (tmp_path / name).write_bytes(b"")
    assert list(list_pictures(tmp_path)) == ["cat"]
    assert "passed over 1: no picture (notes.txt)" in caplog.text
    assert ".DS_Store" in caplog.text and "._cat.png" in caplog.text
