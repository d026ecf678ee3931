"""From decoded pictures to a report: read, score, summarise."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torchmetrics
import torchvision

from mindvis import __version__
from mindvis.common.errors import InputError
from mindvis.common.files import sha256
from mindvis.common.shares import Shares
from mindvis.evaluation.audit_features import MIN_TRAINING, PIXELS, Space, choose_spaces
from mindvis.evaluation.audit_folders import Audited, Training, audit_sets
from mindvis.evaluation.checks import caveats, copying_check, is_imagery, leakage_statements, shown_in_training
from mindvis.evaluation.classifiers import Classified, Classifier
from mindvis.evaluation.measures import Judge, Protocol, Scores
from mindvis.evaluation.pictures import ARRAYS, DecodedSet, check_same_stimuli, read_controls, read_decoded
from mindvis.evaluation.report import (
    Report,
    by_training,
    class_table,
    differences,
    main_figure,
    stimulus_table,
    summarise,
)

BASELINES = "baseline_ridge"  # the folder in which `baseline_ridge` writes one a target
RIDGE = {"latent": "ridge_latent", "class": "ridge_class"}  # such a folder -> name of its column in the report
MAX_FEATURE_NETWORK = 50_000_000  # parameters; a larger network takes minutes for the training pictures


def evaluate_folder(
    path: str | Path,
    *,
    classifier: Classifier,
    protocol: Protocol | None = None,
    stimuli: str | Path | None = None,
    controls: dict[str, str | Path] | None = None,
    baselines: Sequence[str | Path] | None = None,
    training_images: np.ndarray | Training | None = None,
    shares: Shares | None = None,
) -> Report | None:
    """Score the output folder of `generate`, or a folder of decoded pictures beside one of true pictures (`stimuli`).

    Controls are the sub-folders `shuffled` and `mean_fmri`, or those given by name; baselines are the folders given,
    or what `baseline_ridge` wrote for the same data beside the run. `training_images`, uint8 [t h w 3], are for the
    copying check and the audit. Raises InputError for whatever cannot be scored.
    Of several processes (`shares`) the first one gets the report, the others None once they have done their share.
    """
    pictures = read_decoded(path, stimuli)
    others = read_controls(path) if controls is None else {k: _read_control(p, stimuli) for k, p in controls.items()}
    found, notes = find_baselines(pictures) if baselines is None else (read_baselines(pictures, baselines), [])
    report = evaluate_sets(
        pictures,
        others,
        classifier=classifier,
        protocol=protocol or Protocol(),
        baselines=found,
        training_images=training_images,
        shares=shares,
    )
    if report is not None:
        report.skipped += notes
    return report


def _read_control(path: str | Path, stimuli: str | Path | None) -> DecodedSet:
    """As `read_decoded`. Raises InputError also for pictures that generate says are no control."""
    found = read_decoded(path, stimuli)
    if found.settings.get("settings", {}).get("control") == "none":
        raise InputError(f"{path}: holds pictures of control=none; needed: those of shuffled or mean_fmri as controls")
    return found


def evaluate_sets(
    pictures: DecodedSet,
    controls: dict[str, DecodedSet],
    *,
    classifier: Classifier,
    protocol: Protocol,
    baselines: Mapping[str, DecodedSet] | None = None,
    training_images: np.ndarray | Training | None = None,
    shares: Shares | None = None,
) -> Report | None:
    """The report of decoded pictures, their controls and baselines; the true pictures are classified once for all.

    Of several processes (`shares`) the first one gets the report, the others None once they have done their share.
    """
    check_same_stimuli(pictures, controls)
    judge = Judge(classifier, protocol, shares or Shares())
    true = judge.classify(pictures.stimuli)
    scores = {"decoded": judge.score(pictures, true)}
    others = {**controls, **(baselines or {})}
    scores |= {name: judge.score(other, true, is_control=True) for name, other in others.items()}
    if true is None:
        return None
    options = {"seed": protocol.seed, "num_bootstrap": protocol.num_bootstrap}
    tables = _stimulus_tables({"decoded": pictures, **others}, scores, true, judge)
    rows = tables["decoded"]
    training = training_images if isinstance(training_images, Training) else Training(training_images)
    spaces = _spaces(classifier)
    again = shown_in_training(pictures.stimuli, training.images, spaces[0])
    return Report(
        main=main_figure(scores["decoded"], pictures.class_ids, imagined=is_imagery(pictures)),
        figures=[summarise(each, name, n=len(rows), **options) for name, found in scores.items() for each in found],
        per_stimulus=rows,
        per_class=class_table(rows),
        leakage=[*leakage_statements(pictures.settings), again],
        settings={"evaluate": asdict(protocol), "generate": pictures.settings},
        provenance=_provenance(pictures, classifier),
        skipped=judge.skipped,
        caveats=[*caveats(pictures, true.top_class, controls), *judge.caveats],
        copying=_copying(pictures, training, spaces),
        per_control={name: tables[name] for name in others},
        by_training=by_training(tables, pictures.class_ids, training.class_ids, protocol.seed),
        # p is corrected for the number of differences within each kind
        differences=differences(scores, controls, **options) + differences(scores, baselines or {}, **options),
        pictures=pictures,
        baselines=dict(baselines or {}),
        controls=controls,
        audited=_audited(pictures, controls, training, spaces, judge) if protocol.audit else None,
    )


def _stimulus_tables(
    sets: dict[str, DecodedSet], scores: dict[str, list[Scores]], true: Classified, judge: Judge
) -> dict[str, list[dict]]:
    """The table of each set; that of the decoded pictures says what the classifier sees in each picture."""
    names, class_ids = judge.classifier.class_names or (), sets["decoded"].class_ids
    seen = [_class_name(i, names) for i in true.top_class.tolist()]
    classes = [f"classified as {name}" for name in seen]
    if class_ids is not None:
        classes = [_class_name(i, names) for i in class_ids]
    tables = {name: stimulus_table(scores[name], each.stimulus_ids, classes) for name, each in sets.items()}
    for row, of_true, of_samples in zip(tables["decoded"], seen, np.asarray(judge.seen).tolist(), strict=True):
        row |= {"stimulus_seen_as": of_true, "seen_as": [_class_name(i, names) for i in of_samples]}
    return tables


def read_baselines(pictures: DecodedSet, folders: Iterable[str | Path]) -> dict[str, DecodedSet]:
    """The named folders of decoded pictures, or all in a named folder of such, by the names of their columns.

    Raises InputError for a folder without decoded pictures, and for other test pictures than those of `pictures`.
    """
    found: dict[str, DecodedSet] = {}
    for folder in map(Path, folders):
        inside = sorted(path.parent for path in folder.glob(f"[!.]*/{ARRAYS}"))  # not what is being written
        inside = [folder] if (folder / ARRAYS).is_file() else inside
        if not inside:
            raise InputError(f"{folder}: no {ARRAYS} in it or in a folder of it; needed: what baseline_ridge wrote")
        found |= {RIDGE.get(path.name, path.name): same_stimuli(read_decoded(path), pictures) for path in inside}
    return found


def find_baselines(pictures: DecodedSet) -> tuple[dict[str, DecodedSet], list[str]]:
    """The ridge baselines of the same data beside decoded pictures, their run or its folder; a line for each unfit one.

    Pictures that do not say which data they were decoded from have none.
    """
    found: dict[str, DecodedSet] = {}
    notes: list[str] = []
    for beside in (pictures.path, *pictures.path.resolve().parents[:2]):
        for target, name in RIDGE.items():
            folder = beside / BASELINES / target
            if name in found or not (folder / ARRAYS).is_file():
                continue
            baseline = read_decoded(folder)
            if _data_of(baseline) is None or _data_of(baseline) != _data_of(pictures):
                continue  # of another subject or data set
            try:
                found[name] = same_stimuli(baseline, pictures)
            except InputError as error:
                notes.append(f"{name} skipped: {error}")
    return found, notes


def same_stimuli(baseline: DecodedSet, pictures: DecodedSet) -> DecodedSet:
    """The baseline's pictures of the stimuli of `pictures`, in their order. Raises InputError where it lacks one."""
    places = {name: place for place, name in enumerate(baseline.stimulus_ids)}
    order = [places[name] for name in pictures.stimulus_ids if name in places]
    if len(order) < len(pictures.stimuli) or not np.array_equal(baseline.stimuli[order], pictures.stimuli):
        size, own_size = (f"{each.stimuli.shape[1]} x {each.stimuli.shape[2]}" for each in (baseline, pictures))
        found = f"{len(baseline.stimuli)} true pictures of {size} pixels"
        raise InputError(f"{baseline.path}: {found}; needed: those of {pictures.path}, of {own_size} pixels")
    return replace(pictures, path=baseline.path, decoded=baseline.decoded[order], settings=baseline.settings)


def _data_of(pictures: DecodedSet) -> tuple | None:
    """Name, place and subjects of the data that pictures were decoded from, None where that is not recorded."""
    settings = pictures.settings.get("data", {}).get("settings")
    if settings is None:
        return None
    return settings.get("name"), Path(settings.get("root", "")).resolve(), settings.get("subjects")


def _spaces(classifier: Classifier) -> list[Space]:
    """Pixels, and the features of the classifier, or, where it is too large for all training pictures, of another."""
    size = sum(weights.numel() for weights in classifier.network.parameters())
    if size > MAX_FEATURE_NETWORK:
        return choose_spaces()
    return [*choose_spaces(PIXELS), Space(classifier.name, lambda pictures: classifier.classify(pictures).features)]


def _copying(pictures: DecodedSet, training: Training, spaces: list[Space]) -> dict | None:
    """The copying check in pixels, and under `features` in those of a network."""
    if training.images is None:
        return None
    found = {s.name: copying_check(pictures.decoded, pictures.stimuli, training.images, s).summary() for s in spaces}
    return found.pop(PIXELS) | {"features": found}


def _audited(
    pictures: DecodedSet, controls: dict[str, DecodedSet], training: Training, spaces: list[Space], judge: Judge
) -> Audited | None:
    """The audit of the same pictures, or None with a line in `judge.skipped`."""
    if training.images is not None and len(training.images) < MIN_TRAINING:
        training = Training(note=f"{len(training.images)} training pictures are too few for an audit")
    try:
        return audit_sets(pictures, controls, {}, training=training, spaces=spaces, seed=judge.protocol.seed)
    except InputError as error:
        judge.skipped.append(f"audit skipped: {error}")
        return None


def _class_name(index: int, names: tuple[str, ...]) -> str:
    """Two ImageNet classes are both called crane: the number tells them apart."""
    if not 0 <= index < len(names):
        return f"class {index}"
    return names[index] if names.count(names[index]) == 1 else f"{names[index]} {index}"


def _provenance(pictures: DecodedSet, classifier: Classifier) -> dict:
    arrays = pictures.path / ARRAYS
    return {
        "decoded": str(pictures.path),
        "decoded_sha256": sha256(arrays) if arrays.is_file() else None,
        "classifier": classifier.name,
        "classifier_sha256": classifier.weights_sha256,
        "target": "the classifier's most probable class of the true picture",
        "device": str(classifier.device),
        "versions": {
            "mindvis": __version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "torchmetrics": torchmetrics.__version__,
            "numpy": np.__version__,
        },
    }
