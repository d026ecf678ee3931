"""Classes read off fMRI by ridge regression of one-hot classes."""

from collections.abc import Sequence

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.ridge import fit_ridge
from mindvis.data import PairedDataset
from mindvis.evaluation import n_way_accuracy


def class_scores(fmri: np.ndarray, class_ids: Sequence[int], test_fmri: np.ndarray, num_classes: int) -> np.ndarray:
    """Scores [m c] of the classes for test rows [m v], from a regression of one-hot classes on fMRI [n v]."""
    onehot = np.eye(num_classes)[np.asarray(class_ids)]  # [n c]
    return fit_ridge(fmri, onehot).predict(test_fmri)


def ridge_accuracy(train: PairedDataset, test: PairedDataset, *, num_ways: int, top_k: int = 1) -> np.ndarray:
    """n-way top-k accuracy [m] of the class read off each test row. Raises InputError where classes are unknown."""
    if train.class_ids is None or test.class_ids is None:
        raise InputError("ridge reference: the data set names no classes; needed: class_ids")
    num_classes = max([*train.class_ids, *test.class_ids]) + 1
    fmri, test_fmri = np.asarray(train.fmri), np.asarray(test.fmri)
    scores = class_scores(fmri, train.class_ids, test_fmri, num_classes)
    return n_way_accuracy(scores, np.asarray(test.class_ids), num_ways=num_ways, top_k=top_k)
