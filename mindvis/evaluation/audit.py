"""An audit: do decoded pictures reconstruct what was seen, retrieve, classify, or invent?

`audit_pictures` takes arrays of pictures of anybody's decoder. `docs/audit.md` explains each figure; the rules of the
verdict are those of `audit_verdict`.

`audit.json`, schema `mindvis.audit/1`:

- `verdict`: reconstruction, classification, retrieval, invention or undecided; `steps`: the lines that led to it
- `evidence`: name -> {`value`, `low`, `high` (95 %, over stimuli and subjects), `by_accident`, `p`, `p_holm`,
  `d_prime`, `n`}, null where there is none
- `placement`: {`information`, `detail`, `copying`}, each from 0 to 1 (null: not measured): where mixtures lie
- `per_stimulus`: name -> list of numbers, one a different stimulus, for the plots
- `others`: name of a baseline or ceiling -> its `verdict`, `steps`, `placement`, `evidence`, `caveats`; `differences`:
  decoded minus it, paired over stimuli (both only in the file of `scripts/audit.py`)
- `caveats`: lines; `exposure`: what was declared to have been seen of the test set; `settings`: plain values
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mindvis.common.errors import InputError
from mindvis.evaluation import audit_figures as figures
from mindvis.evaluation.audit_features import Embed, Pictures, Space, check_training, choose_spaces, unique_stimuli
from mindvis.evaluation.audit_verdict import UNDECIDED, Finding, judge, of_kind
from mindvis.evaluation.pictures import check_decoded

SCHEMA = "mindvis.audit/1"
MIN_STIMULI = 10  # different ones that are not training pictures; with fewer nothing is decided
EXPOSED = ("generator", "classifier", "stage_a")


@dataclass
class Audit:
    """What decoded pictures are evidence of; the schema is at the top of this file."""

    verdict: str
    steps: list[str]
    evidence: dict[str, Finding]
    placement: dict[str, float | None]
    per_stimulus: dict[str, np.ndarray]
    caveats: list[str] = field(default_factory=list)
    exposure: dict[str, str] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)

    def as_dict(self) -> dict:
        """The content of audit.json."""
        evidence = {name: dict(vars(finding)) for name, finding in self.evidence.items()}
        for content in evidence.values():
            del content["name"]
        per_stimulus = {name: values.tolist() for name, values in self.per_stimulus.items()}
        return {"schema": SCHEMA, **vars(self), "evidence": evidence, "per_stimulus": per_stimulus}


def audit_pictures(
    decoded: np.ndarray,
    stimuli: np.ndarray,
    *,
    training: Pictures | None = None,
    class_ids: Sequence[int] | None = None,
    training_class_ids: Sequence[int] | None = None,
    controls: Mapping[str, np.ndarray] | None = None,
    features: str | Embed | list[Space] | None = None,
    subjects: Sequence | None = None,
    exposure: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Audit:
    """Audit decoded pictures uint8 [n k h w 3] of stimuli uint8 [n h w 3].

    `training`: uint8 [t h' w' 3], an array or anything that has a length and can be sliced. `class_ids` [n],
    `training_class_ids` [t]: annotated classes. `controls`: name -> pictures decoded from uninformative fMRI, in the
    order of `stimuli`. `features`: as for `choose_spaces`. `subjects` [n]: whose fMRI each row is. `exposure`:
    what the generator, the classifier and Stage A have seen of the test set, in words. Raises InputError for arrays
    that do not fit.
    """
    controls = dict(controls or {})
    _check(decoded, stimuli, controls, {"class_ids": class_ids, "subjects": subjects}, exposure or {})
    check_training(training, training_class_ids)
    spaces = choose_spaces(features)
    leaked, used, own, first = _choose(stimuli, training, spaces[0])
    few = (~leaked).sum() < MIN_STIMULI
    sets = {name: pictures if used.all() else pictures[used] for name, pictures in controls.items()}
    shown = decoded if used.all() else decoded[used]
    rows = [_rows(space, shown, stimuli[first], own, sets, training) for space in spaces]
    known = figures.Known(
        class_ids=None if class_ids is None else np.asarray(class_ids)[first],
        training_class_ids=None if training_class_ids is None else np.asarray(training_class_ids),
        subjects=None if subjects is None else _numbers(subjects, used, decoded.shape[1]),
        seed=seed,
    )
    evidence, per_stimulus = _measure(rows, known)
    verdict, steps = judge(evidence, has_training=training is not None)
    facts: dict[str, int | None] = {"num_stimuli": len(leaked), "num_leaked": int(leaked.sum())}
    facts |= {"num_samples": decoded.shape[1], "num_training": None if training is None else len(training)}
    return Audit(
        verdict=UNDECIDED if few else verdict,
        steps=[_too_few(leaked), *steps] if few else steps,
        evidence=evidence,
        placement=_placement(evidence),
        per_stimulus={"row": first, **per_stimulus},
        caveats=_caveats(leaked, len(stimuli), class_ids, controls, training),
        exposure=dict.fromkeys(EXPOSED, "not declared") | dict(exposure or {}),
        settings={"seed": seed, "spaces": [space.name for space in spaces], **facts},
    )


def _check(
    decoded: np.ndarray,
    stimuli: np.ndarray,
    controls: Mapping[str, np.ndarray],
    by_row: Mapping[str, Sequence | None],
    exposure: Mapping[str, str],
) -> None:
    check_decoded(decoded, stimuli)
    for name, control in controls.items():
        check_decoded(control, stimuli, f"control {name}")
    for name, values in by_row.items():
        if values is not None and len(values) != len(stimuli):
            raise InputError(f"{name}: found {len(values)}, need {len(stimuli)}, one a stimulus")
    for name in exposure:
        if name not in EXPOSED:
            raise InputError(f"exposure: found {name!r}; needed: {', '.join(EXPOSED)}")


def _choose(
    stimuli: np.ndarray, training: Pictures | None, pixels: Space
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which different pictures [m] are training pictures; which rows [n] are used, without these unless few are left.

    Then the number of the picture that each used row shows, and the first row of each of these pictures.
    """
    own, first = unique_stimuli(stimuli)
    leaked = np.zeros(len(first), bool)
    if training is not None:
        true = stimuli[first]
        leaked = figures.shown_again(true, pixels(true), training, pixels.kept(training))
    kept = ~leaked if (~leaked).sum() >= MIN_STIMULI else np.ones_like(leaked)
    used = kept[own]
    return leaked, used, (np.cumsum(kept) - 1)[own[used]], first[kept]


def _rows(
    space: Space,
    decoded: np.ndarray,
    true: np.ndarray,
    own: np.ndarray,
    controls: Mapping[str, np.ndarray],
    training: Pictures | None,
) -> figures.Rows:
    """Features of decoded [n k h w 3] and true pictures [m h w 3]; own [n] is the true picture of each row."""
    return figures.Rows(
        space=space.name,
        decoded=space(decoded.reshape(-1, *true.shape[1:])),
        true=space(true),
        own=np.repeat(own, decoded.shape[1]),
        training=None if training is None else space.kept(training),
        controls={name: space(control.reshape(-1, *true.shape[1:])) for name, control in controls.items()},
        controls_own={name: np.repeat(own, control.shape[1]) for name, control in controls.items()},
    )


def _numbers(subjects: Sequence, used: np.ndarray, k: int) -> np.ndarray | None:
    """The number of the subject of each decoded picture that is used: [r]; None for one subject."""
    numbers = np.unique(np.asarray(subjects), return_inverse=True)[1]
    return np.repeat(numbers[used], k) if numbers.max() else None


def _too_few(leaked: np.ndarray) -> str:
    if not leaked.any():
        return f"{len(leaked)} different test pictures, need {MIN_STIMULI}"
    return f"{int(leaked.sum())} of {len(leaked)} test pictures are training pictures: nothing can be told from them"


def _measure(spaces: list[figures.Rows], known: figures.Known) -> tuple[dict[str, Finding], dict[str, np.ndarray]]:
    """All findings by name, and the numbers by stimulus that the plots show."""
    findings: list[Finding] = []
    per_stimulus: dict[str, np.ndarray] = {}
    copied: list[np.ndarray] = []
    for rows in spaces:
        findings += figures.identification(rows, known)
        per_stimulus[f"own_against_other/{rows.space}"] = figures.scores(rows)
        if known.class_ids is not None:
            per_stimulus[f"within_class/{rows.space}"] = figures.scores(rows, known.class_ids)
        if rows.training is None:
            continue
        true = figures.neighbours(rows.true, rows.training)
        of_decoded = figures.neighbours(rows.decoded, rows.training)
        copied.append(figures.copied(of_decoded, true, rows.own))
        closer, rank = figures.novelty(rows, known)
        findings += [figures.against_nearest(rows, true, known), closer]
        findings += [*figures.overlap(rows, true, known), *figures.collapse(rows, known)]
        m = len(rows.true)
        per_stimulus[f"closeness_to_training/{rows.space}"] = true.closeness
        per_stimulus[f"decoded_to_training/{rows.space}"] = figures.by_stimulus(of_decoded.closeness, rows.own, m)
        per_stimulus[f"rank_of_truth/{rows.space}"] = figures.by_stimulus(rank, rows.own, m)
    if copied:
        findings.append(figures.copies(copied, spaces[0], known))
        any_space = np.logical_or.reduce(copied).astype(float)
        per_stimulus["copied"] = figures.by_stimulus(any_space, spaces[0].own, len(spaces[0].true))
    return {finding.name: finding for finding in figures.corrected(findings)}, per_stimulus


def _placement(evidence: Mapping[str, Finding]) -> dict[str, float | None]:
    """Where a decoder lies between none and all: 2 area - 1, in the space where it is largest; the share of copies."""
    places = {}
    for name, kind in (("information", "own_against_other"), ("detail", "within_class")):
        areas = [finding.value for finding in of_kind(evidence, kind)]
        places[name] = max(0.0, 2 * max(areas) - 1) if areas else None
    return places | {"copying": evidence["copies"].value if "copies" in evidence else None}


def _caveats(
    leaked: np.ndarray,
    num_rows: int,
    class_ids: Sequence[int] | None,
    controls: Mapping[str, np.ndarray],
    training: Pictures | None,
) -> list[str]:
    """What a reader must know about what was not given, or was left out."""
    lines = []
    if leaked.any():
        lines.append(f"{int(leaked.sum())} of {len(leaked)} test pictures are training pictures and were left out")
    if len(leaked) < num_rows:
        lines.append(f"{num_rows} rows show {len(leaked)} different pictures, each counted once")
    if training is None:
        lines.append("no training pictures: copying, overlap and novelty were not measured")
    if class_ids is None:
        lines.append("no class ids: identification within the class was not measured")
    if not controls:
        lines.append("no controls: chance is that of the same pictures dealt to other stimuli")
    return lines


def json_text(content: dict) -> str:
    """The text of audit.json or report.json; NaN and infinity, which JSON has not, become null."""
    return json.dumps(_finite(content), indent=1, allow_nan=False, default=str) + "\n"


def _finite(value: Any) -> Any:
    """The same structure with null for every number that is not finite."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
