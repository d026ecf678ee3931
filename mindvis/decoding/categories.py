"""Classes: what linear regressions read off fMRI, and how often decoded pictures carry the one that was shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mindvis.common.errors import InputError
from mindvis.common.ridge import fit_ridge
from mindvis.config.loading import from_plain
from mindvis.config.schemas import DataConfig
from mindvis.data import PairedDataset
from mindvis.data.open import open_pairs
from mindvis.evaluation import n_way_accuracy
from mindvis.evaluation.classifiers import Classifier
from mindvis.evaluation.pictures import DecodedSet, read_controls, read_decoded

LOGISTIC = "logistic regression"


def class_scores(
    fmri: np.ndarray, class_ids: Sequence[int] | np.ndarray, test_fmri: np.ndarray, num_classes: int
) -> np.ndarray:
    """Scores [m c] of the classes for test rows [m v], from a ridge regression of one-hot classes on fMRI [n v]."""
    onehot = np.eye(num_classes)[np.asarray(class_ids)]  # [n c]
    return fit_ridge(fmri, onehot).predict(test_fmri)


def predict_classes(train: PairedDataset, test: PairedDataset) -> np.ndarray:
    """The class that `class_scores` scores highest for every test row: int [n]."""
    known, numbers = np.unique(np.asarray(train.class_ids), return_inverse=True)
    return known[class_scores(np.asarray(train.fmri), numbers, np.asarray(test.fmri), len(known)).argmax(axis=1)]


def ridge_accuracy(train: PairedDataset, test: PairedDataset, *, num_ways: int, top_k: int = 1) -> np.ndarray:
    """n-way top-k accuracy [m] of the class read off each test row. Raises InputError where classes are unknown."""
    if train.class_ids is None or test.class_ids is None:
        raise InputError("ridge reference: the data set names no classes; needed: class_ids")
    num_classes = max([*train.class_ids, *test.class_ids]) + 1
    scores = class_scores(np.asarray(train.fmri), train.class_ids, np.asarray(test.fmri), num_classes)
    return n_way_accuracy(scores, np.asarray(test.class_ids), num_ways=num_ways, top_k=top_k)


@dataclass(frozen=True)
class CategoryScores:
    """Of each test row [n], by name (`decoded`, the controls, `logistic regression`): share of its category found."""

    shares: dict[str, np.ndarray]
    chance: float


def score_categories(folder: str | Path, classifier: Classifier) -> CategoryScores:
    """Scores of a folder that `generate` wrote, and of a logistic regression on the training rows of its data.

    A picture carries the category that is the most probable for the classifier among those of the test rows. Raises
    InputError for pictures without classes, or of classes that the classifier does not know.
    """
    decoded = read_decoded(folder)
    known = sorted(set(decoded.class_ids or []))
    if len(known) < 2 or known[-1] >= classifier.num_classes:
        found = f"classes {known[:3]}" if known else "no classes"
        raise InputError(f"{folder}: {found}; needed: two or more that the classifier {classifier.name} knows")
    sets = {"decoded": decoded, **read_controls(folder)}
    shares = {name: picture_shares(found, classifier, known) for name, found in sets.items()}
    about = decoded.settings.get("data", {}).get("settings")
    if about is None:
        raise InputError(f"{folder}: generate.json names no data; needed: pictures that generate wrote")
    train, test, _ = open_pairs(from_plain(DataConfig, about, str(folder)), decoded.settings["patch_size"])
    right = read_by_logistic_regression(train, test) == np.asarray(test.class_ids)
    shares[LOGISTIC] = right[np.asarray(decoded.stimulus_ids, int)].astype(float)
    return CategoryScores(shares, 1 / len(known))


def picture_shares(decoded: DecodedSet, classifier: Classifier, known: list[int]) -> np.ndarray:
    """Share of the samples of each row that carry its category: [n]."""
    pictures = decoded.decoded.reshape(-1, *decoded.decoded.shape[2:])
    logits = classifier.classify(pictures).logits[:, known]
    found = np.array(known)[logits.argmax(axis=1)].reshape(decoded.decoded.shape[:2])
    return (found == np.asarray(decoded.class_ids)[:, None]).mean(axis=1)


def read_by_logistic_regression(train: PairedDataset, test: PairedDataset) -> np.ndarray:
    """The class of each test row by L2-regularised logistic regression on standardised voxels: int [n]."""
    if train.class_ids is None or test.class_ids is None:
        raise InputError("logistic regression: the data set names no classes; needed: class_ids")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return model.fit(np.asarray(train.fmri), train.class_ids).predict(np.asarray(test.fmri))
