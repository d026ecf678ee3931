"""Training categories as the test set."""

import numpy as np
import pytest

from mindvis.common.errors import InputError
from mindvis.config.decoding import GenerateConfig
from mindvis.config.loading import load_config
from mindvis.config.schemas import DataConfig
from mindvis.data import PairedDataset
from mindvis.data.open import open_pairs
from mindvis.data.pairs import swap_categories

GOD = "tests/golden/raw/Kamitani/npz"
NAMES = ["owl", "cup", "bus"]


def pairs(rng, num_subjects: int = 2, classes: bool = True) -> tuple[PairedDataset, PairedDataset]:
    """Three training categories of four pictures and two test categories of one, seen by each subject."""
    parts = []
    for start, count, each in ((0, 3, 4), (3, 2, 1)):
        class_ids = np.tile(np.repeat(np.arange(start, start + count), each), num_subjects)
        stimulus = np.tile(np.arange(count * each), num_subjects)
        images = rng.integers(0, 256, (count * each, 6, 6, 3), np.uint8)
        fmri = rng.standard_normal((len(stimulus), 10), np.float32)
        names = [f"{(NAMES + ['fly', 'tie'])[i]}" for i in class_ids]
        known = {"class_ids": class_ids.tolist(), "class_names": names} if classes else {}
        subject = np.repeat([f"S{i}" for i in range(num_subjects)], count * each)
        parts.append(PairedDataset(fmri, images, stimulus=stimulus, subject=subject, **known))
    return parts[0], parts[1]


def rows_of(dataset: PairedDataset) -> set:
    """What each row is: its fMRI, its picture, its class and its subject."""
    columns = zip(dataset.fmri, dataset.images, dataset.class_ids, dataset.subject, strict=True)
    return {(fmri.tobytes(), image.tobytes(), label, subject) for fmri, image, label, subject in columns}


def test_one_picture_of_each_category_is_tested_and_the_test_set_is_trained_on(rng):
    """No row is lost or mixed up; test rows come in the order asked for, subject by subject."""
    before = pairs(rng)
    train, test = swap_categories(*before, ["bus", "0"], seed=1)
    assert test.class_ids == [2, 0, 2, 0] and list(test.subject) == ["S0", "S0", "S1", "S1"]
    assert np.array_equal(test.images[:2], test.images[2:])  # the same pictures for both subjects
    assert rows_of(train) | rows_of(test) == rows_of(before[0]) | rows_of(before[1])
    assert train.num_rows == 24 - 4 + 4 and not rows_of(train) & rows_of(test)
    assert train.class_ids[-4:] == [3, 4, 3, 4]


def test_the_pictures_follow_from_the_seed(rng):
    """Each of them is drawn by some seed, and by one seed always the same."""
    before = pairs(rng, num_subjects=1)
    drawn = [swap_categories(*before, ["1"], seed)[1].images.tobytes() for seed in [*range(40), 0]]
    assert len(set(drawn)) == 4 and drawn[0] == drawn[-1]


@pytest.mark.parametrize(
    ("categories", "named"),
    [(["3"], "names '3'; needed: 0 to 2"), (["ufo"], "names 'ufo'"), (["owl", "0"], "each category once")],
)
def test_a_category_that_is_not_there_is_one_line(rng, categories, named):
    with pytest.raises(InputError, match=named):
        swap_categories(*pairs(rng), categories, seed=0)


def test_data_without_classes_or_second_pictures_is_refused(rng):
    """BOLD5000 names no classes; a category of one picture would be left without training."""
    with pytest.raises(InputError, match="classes of the pictures are not known"):
        swap_categories(*pairs(rng, classes=False), ["0"], seed=0)
    train, test = pairs(rng)
    with pytest.raises(InputError, match="class 3 has one training picture"):
        swap_categories(test, train, ["fly"], seed=0)


def test_it_is_a_setting_of_the_data():
    """Numbers and names from a command line; the averages of the test set join the training rows."""
    given = ["run=x", "data.name=god", f"data.root={GOD}", "data.subjects=[sbj_1]", "data.test_category=[0,class_2]"]
    config = load_config(GenerateConfig, None, given).data
    train, test, _ = open_pairs(config, 8)
    plain_train, plain_test, _ = open_pairs(DataConfig(root=GOD, subjects=["sbj_1"]), 8)
    first = plain_train.class_names[int(np.argmin(plain_train.stimulus))]
    assert test.class_names == [first, "class_2"] and first == "class_0"
    assert train.num_rows == plain_train.num_rows - 2 + plain_test.num_rows
