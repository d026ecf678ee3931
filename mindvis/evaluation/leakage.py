"""What touched the test set before it was decoded, from the settings that `generate` wrote beside the pictures.

Keys of `test_set_use` in `generate.json`: `stage_a_tuning` (none, train, test, both), `checkpoint_selection`
(validation, last, test), `normalisation` (separate, train, joint). What is absent is said to be not recorded.
"""

QUESTIONS = {
    "stage_a_tuning": (
        "Stage A tuned on test fMRI",
        {
            "none": (False, "Stage A was not tuned on this data set."),
            "train": (False, "Stage A was tuned on training fMRI only."),
            "test": (True, "Stage A was tuned on the fMRI of the test set, as published (no pictures or labels)."),
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
            "joint": (True, "Training and test fMRI were scaled with their common moments, as published for BOLD5000."),
        },
    ),
}


def leakage_statements(settings: dict) -> list[dict]:
    """A line a way in which test data can leak: {`what`, `touched` (None = not recorded), `text`}."""
    use = settings.get("test_set_use") or {}
    return [_statement(key, use.get(key)) for key in QUESTIONS]


def _statement(key: str, found: object) -> dict:
    what, answers = QUESTIONS[key]
    unknown = "Not recorded with these pictures." if found is None else f"Recorded as {found!r}, which is unknown here."
    touched, text = answers.get(str(found), (None, unknown))
    return {"what": what, "touched": touched, "text": text}
