"""A share of the training pictures (`data.fraction`): which rows it is, and that only they scale the data."""

from pathlib import Path

import numpy as np
import pytest
from mosaic_files import needs_glasser, write_mosaic

from mindvis.common.errors import InputError
from mindvis.config.schemas import DataConfig
from mindvis.data import PairedDataset
from mindvis.data.open import open_extra, open_pairs
from mindvis.data.subjects import chosen_share

RAW = Path(__file__).parent / "golden" / "raw"
GOD = {"name": "god", "root": str(RAW / "Kamitani" / "npz"), "scale_test": "train"}
BOLD5000 = {"name": "bold5000", "root": str(RAW / "BOLD5000")}


def rows_of(dataset: PairedDataset, subject: str) -> np.ndarray:
    return np.asarray(dataset.fmri)[dataset.subject == subject]


def assert_same_but_for_scale(found: np.ndarray, rows: np.ndarray) -> None:
    """Scaled by another mean and deviation, the rows [n v] are the same."""
    assert found.shape == rows.shape
    slope, offset = np.polyfit(rows.ravel().astype(float), found.ravel().astype(float), 1)
    assert np.abs(slope * rows + offset - found).max() < 1e-5
    assert abs(slope - 1) > 1e-4 or abs(offset) > 1e-4


@pytest.mark.parametrize("settings", [GOD, BOLD5000], ids=["god", "bold5000"])
def test_a_share_is_scaled_by_its_own_rows(settings):
    """Of every subject the rows of the drawn pictures; mean 0 and deviation 1 over them (BOLD5000: and the test)."""
    whole, whole_test, _ = open_pairs(DataConfig(**settings, include_single_trials=True), 16)
    train, test, _ = open_pairs(DataConfig(**settings, fraction=0.4, include_single_trials=True), 16)
    kept = chosen_share(whole.stimulus, 0.4)
    assert train.stimulus.tolist() == whole.stimulus[kept].tolist() and len(train) < len(whole)
    for subject in np.unique(whole.subject):
        used = rows_of(train, subject).astype(float)
        assert_same_but_for_scale(used, np.asarray(whole.fmri)[kept & (whole.subject == subject)])
        assert_same_but_for_scale(rows_of(test, subject), rows_of(whole_test, subject))
        if settings["name"] == "bold5000":
            used = np.concatenate([used, rows_of(test, subject)[test.repeat[test.subject == subject] > 0]])
        assert abs(used.mean()) < 1e-2 and abs(used.std() - 1) < 1e-2  # but for the padding of the shorter subject


@needs_glasser
def test_trials_that_stay_in_their_files_are_scaled_by_a_share(tmp_path):
    """MOSAIC, as NSD: the pictures are drawn for all subjects at once, and other splits are scaled by the same rows."""
    trials = [(f"{name}.png", "train", 0) for name in "abcdef"] + [("t.png", "test", 0), ("x.png", "artificial", 0)]
    write_mosaic(tmp_path, ("sub-01_NSD", "sub-02_NSD"), trials=trials)
    settings = {"name": "mosaic", "root": str(tmp_path), "roi": "V4"}
    whole = open_pairs(DataConfig(**settings), 16)[0]
    train, test, _ = open_pairs(DataConfig(**settings, fraction=0.5), 16)
    kept = chosen_share(whole.stimulus, 0.5)
    assert train.stimulus_names == [name for name, is_kept in zip(whole.stimulus_names, kept, strict=True) if is_kept]
    assert len(train) == 6 and len(test) == 2
    extra = open_extra(DataConfig(**settings, fraction=0.5), "artificial", 16)
    for subject in ("sub-01_NSD", "sub-02_NSD"):
        used = rows_of(train, subject)
        assert abs(used.mean()) < 1e-4 and abs(used.std() - 1) < 1e-4
        assert_same_but_for_scale(used, np.asarray(whole.fmri)[kept & (whole.subject == subject)])
        assert train.formats[subject].mean == extra.formats[subject].mean == test.formats[subject].mean


def test_imagery_is_scaled_as_the_test_rows_are(tmp_path):
    """GOD with scale_test=train: by the rows of the share."""
    source = dict(np.load(RAW / "Kamitani" / "npz" / "sbj_3.npz"))
    for path in (RAW / "Kamitani" / "npz").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    source |= {"imagery": source["arr_2"], "imagery_images": np.arange(len(source["arr_2"]))}
    np.savez(tmp_path / "sbj_3.npz", **source)
    settings = {**GOD, "root": str(tmp_path), "subjects": ["sbj_3"], "fraction": 0.4}
    imagined = open_extra(DataConfig(**settings), "imagery", 16)
    np.testing.assert_array_equal(imagined.fmri, open_pairs(DataConfig(**settings), 16)[1].fmri)


def test_a_share_of_less_than_a_picture_is_refused():
    """One picture would be no training; the line says which share is."""
    with pytest.raises(InputError, match="fraction is 0.001 of 40 training pictures, which leaves none; needed: 0.025"):
        chosen_share(np.arange(40), 0.001)
    assert chosen_share(np.arange(40), 0.025).sum() == 1
