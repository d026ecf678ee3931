"""What a reader must know about the figures: how the test set was used before, and whether pictures are copies.

How it was used is read from what `generate` wrote beside the pictures: keys of `test_set_use` in
`generate.json`: `stage_a_tuning` (none, train, test, test averages, both), `checkpoint_selection` (validation, last,
test), `normalisation` (separate, train, session, joint). What is absent is reported as not recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mindvis.evaluation.audit_features import PIXELS, Pictures, Space, small_pixels
from mindvis.evaluation.audit_figures import nearest, shown_again
from mindvis.evaluation.pictures import DecodedSet

COPY = 0.95  # correlation at this size above which two photographs are the same for the eye
QUESTIONS = {
    "stage_a_tuning": (
        "Stage A tuned on test fMRI",
        {
            "none": (False, "Stage A was not tuned on this data set."),
            "train": (False, "Stage A was tuned on training fMRI only."),
            "test": (
                True,
                "Stage A was tuned on the test fMRI, single trials too, as published (no pictures or labels).",
            ),
            "test averages": (True, "Stage A was tuned on the averaged fMRI of the test set (no pictures or labels)."),
            "both": (True, "Stage A was tuned on training and test fMRI (no pictures or labels)."),
        },
    ),
    "checkpoint_selection": (
        "Checkpoint selected on the test set",
        {
            "validation": (False, "The checkpoint was selected on held-out training stimuli."),
            "last": (False, "The last checkpoint was taken, nothing was selected."),
            "test": (True, "The checkpoint was selected by its score on the test set, as published: too optimistic."),
        },
    ),
    "normalisation": (
        "Normalisation used test fMRI",
        {
            "separate": (False, "Test fMRI came scaled or was scaled by itself."),
            "train": (False, "Test fMRI was scaled with the moments of the training fMRI."),
            "session": (True, "A voxel was z-scored over all trials of a session, those of test pictures among them."),
            "joint": (True, "Training and test fMRI were scaled with their common moments, as published for BOLD5000."),
        },
    ),
}


def caveats(pictures: DecodedSet, true_classes: np.ndarray, controls: Mapping[str, DecodedSet]) -> list[str]:
    """What the figures are not, a line each; `true_classes` [n]: the classifier's classes of the true pictures."""
    control = pictures.settings.get("settings", {}).get("control", "none")
    lines = [line for line in map(kept_rows, [pictures, *controls.values()]) if line]
    if control != "none":
        lines.append(f"control {control}: the column `decoded` is not of each stimulus's own fMRI")
    if is_imagery(pictures):
        lines.append(
            "imagery: nothing was shown; the true picture stands for the category that was imagined, so figures called "
            "labelled, which take that category as the target, are the score"
        )
    n, num_classes = len(true_classes), len(np.unique(true_classes))
    if 4 * num_classes <= n:  # chance may not hold: a decoder may prefer one of few classes whatever it is shown
        lines.append(
            f"n-way: {n} stimuli have {num_classes} target classes, so pictures of one of these may score above chance "
            "without any fMRI; compare with the controls"
        )
    return lines


def is_imagery(pictures: DecodedSet) -> bool:
    """Whether the pictures were decoded from fMRI of imagery."""
    return pictures.settings.get("settings", {}).get("split") == "imagery"


def leakage_statements(settings: dict) -> list[dict]:
    """A line a way in which test data can leak: {`what`, `touched` (None = not recorded), `text`}."""
    use = settings.get("test_set_use") or {}
    lines = []
    for key, (what, answers) in QUESTIONS.items():
        found = use.get(key)
        unknown = "Not recorded with these pictures."
        if found is not None:
            unknown = f"Recorded as {found!r}, which is unknown here."
        touched, text = answers.get(str(found), (None, unknown))
        lines.append({"what": what, "touched": touched, "text": text})
    return lines


def shown_in_training(stimuli: np.ndarray, training: Pictures | None, pixels: Space) -> dict:
    """The same line about test pictures uint8 [n h w 3] that are among the training pictures [t h' w' 3]."""
    what = "Test pictures among the training pictures"
    if training is None:
        return {"what": what, "touched": None, "text": "No training pictures were found to compare with."}
    found = int(shown_again(stimuli, pixels(stimuli), training, pixels.kept(training)).sum())
    meaning = ": their scores say nothing about new pictures" if found else ""
    text = f"{found} of {len(stimuli)} test pictures are training pictures{meaning}."
    return {"what": what, "touched": found > 0, "text": text}


@dataclass
class CopyingCheck:
    """Nearest training picture of decoded and, for scale, of true pictures: Pearson correlation in some features."""

    decoded: np.ndarray  # [n k] highest correlation with any training picture
    true: np.ndarray  # [n] the same of the true pictures: what no copying at all looks like
    nearest: np.ndarray  # [n k] index of that training picture

    def summary(self) -> dict[str, float | int]:
        """Plain numbers for the report."""
        return {
            "decoded_mean": float(self.decoded.mean()),
            "true_mean": float(self.true.mean()),
            "decoded_max": float(self.decoded.max()),
            "near_copies": int((self.decoded > COPY).sum()),
            "true_near_copies": int((self.true > COPY).sum()),
            "nearer_than_true": int((self.decoded > self.true[:, None]).sum()),
            "num_decoded": int(self.decoded.size),
            "threshold": COPY,
        }


def copying_check(
    decoded: np.ndarray, stimuli: np.ndarray, training: Pictures, space: Space | None = None
) -> CopyingCheck:
    """Closeness to training pictures: uint8 [n k h w 3], [n h w 3], [t h' w' 3] -> CopyingCheck.

    In the features of `space`; by default the pixels at 32 x 32.
    """
    space = space or Space(PIXELS, small_pixels)
    n, k = decoded.shape[:2]
    training_rows = space.kept(training)
    copied, of_decoded = nearest(space(decoded.reshape(n * k, *decoded.shape[2:])), training_rows)
    of_true = nearest(space(stimuli), training_rows)[1]
    return CopyingCheck(of_decoded.reshape(n, k), of_true, copied.reshape(n, k))


def kept_rows(control: DecodedSet) -> str | None:
    """A line about a shuffled control in which rows kept their own fMRI, or that of their class; None for another set.

    Folders from before shuffling excluded that name the seed of their permutation, which is drawn again here.
    """
    settings = control.settings.get("settings", {})
    if settings.get("control") != "shuffled":
        return None
    shuffle = control.settings.get("shuffle")
    if shuffle is not None:
        kept = shuffle.get("kept_class") or 0
        return f"control shuffled: {kept} of {shuffle['rows']} rows have fMRI of their own class" if kept else None
    rows = np.asarray(control.stimulus_ids, dtype=object)
    total = control.settings.get("data", {}).get(settings.get("split", "test"), {}).get("rows", len(rows))
    if "seed" not in settings or not all(str(row).isdigit() and int(row) < total for row in rows):
        return "control shuffled: it is not recorded how, so rows may have kept their own fMRI"
    rows = rows.astype(int)
    kept = int((np.random.default_rng(settings["seed"]).permutation(total)[rows] == rows).sum())
    again = "; decoded anew with control=shuffled, none would" if kept else ""
    return f"control shuffled: {kept} of {len(rows)} rows kept their own fMRI{again}"
