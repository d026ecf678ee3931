"""From decoded pictures to a report: `evaluate_folder` reads, scores, summarises; `write_report` writes the files."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torchmetrics
import torchvision

from mindvis import __version__
from mindvis.common.errors import InputError
from mindvis.common.files import sha256, write_text
from mindvis.common.plots import reconstruction_grid, save_png
from mindvis.common.shares import Shares
from mindvis.evaluation.checks import copying_check, leakage_statements
from mindvis.evaluation.classifiers import Classified, Classifier
from mindvis.evaluation.html import report_html
from mindvis.evaluation.measures import Judge, Protocol
from mindvis.evaluation.pictures import ARRAYS, DecodedSet, read_controls, read_decoded, shrink
from mindvis.evaluation.report import (
    Report,
    class_table,
    figures_csv,
    report_json,
    stimulus_table,
    summarise,
)

GRID_SIDE = 128  # pixels: a grid of 113 stimuli stays a file that viewers open


def evaluate_folder(
    path: str | Path,
    *,
    classifier: Classifier,
    protocol: Protocol | None = None,
    stimuli: str | Path | None = None,
    controls: dict[str, str | Path] | None = None,
    training_images: np.ndarray | None = None,
    shares: Shares | None = None,
) -> Report | None:
    """Score the output folder of `generate`, or a folder of decoded pictures beside one of true pictures (`stimuli`).

    Controls are the sub-folders `shuffled` and `mean_fmri`, or those given by name. `training_images`, uint8
    [t h w 3], are for the copying check. Raises InputError for whatever cannot be scored.
    Of several processes (`shares`) the first one gets the report, the others None once they have done their share.
    """
    pictures = read_decoded(path, stimuli)
    others = read_controls(path) if controls is None else {k: read_decoded(p, stimuli) for k, p in controls.items()}
    options = {"classifier": classifier, "protocol": protocol or Protocol(), "shares": shares}
    return evaluate_sets(pictures, others, training_images=training_images, **options)


def evaluate_sets(
    pictures: DecodedSet,
    controls: dict[str, DecodedSet],
    *,
    classifier: Classifier,
    protocol: Protocol,
    training_images: np.ndarray | None = None,
    shares: Shares | None = None,
) -> Report | None:
    """The report of decoded pictures and their controls; the true pictures are classified once for all of them.

    Of several processes (`shares`) the first one gets the report, the others None once they have done their share.
    """
    for name, control in controls.items():
        if not np.array_equal(control.stimuli, pictures.stimuli):
            raise InputError(f"{control.path}: the true pictures of control {name!r} are not those of {pictures.path}")
    judge = Judge(classifier, protocol, shares or Shares())
    true = judge.classify(pictures.stimuli)
    scores = {"decoded": judge.score(pictures, true)}
    scores |= {name: judge.score(control, true, is_control=True) for name, control in controls.items()}
    if true is None:
        return None
    options = {"n": len(pictures.stimuli), "seed": protocol.seed, "num_bootstrap": protocol.num_bootstrap}
    rows = stimulus_table(scores["decoded"], pictures.stimulus_ids, _class_names(pictures, true, classifier))
    copying = None
    if training_images is not None:
        copying = copying_check(pictures.decoded, pictures.stimuli, training_images).summary()
    return Report(
        main=scores["decoded"][0].name,
        figures=[summarise(measure, name, **options) for name, of_set in scores.items() for measure in of_set],
        per_stimulus=rows,
        per_class=class_table(rows),
        leakage=leakage_statements(pictures.settings),
        settings={"evaluate": asdict(protocol), "generate": pictures.settings},
        provenance=_provenance(pictures, classifier),
        skipped=judge.skipped,
        caveats=[*_of_control(pictures), *_of_few_classes(true), *judge.caveats],
        copying=copying,
        pictures=pictures,
    )


def write_report(report: Report, folder: str | Path, *, masked_reconstruction: bytes | None = None) -> Path:
    """Write report.json, .csv, .html and the grid, best stimulus first; returns the page. Raises InputError.

    `masked_reconstruction`: PNG of the Stage A plot, for the page.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = report_html(report, masked_reconstruction=masked_reconstruction)
        save_png(_sorted_grid(report), folder / "grid_sorted.png")
        write_text(folder / "report.csv", figures_csv(report.figures))
        write_text(folder / "report.html", page)
        write_text(folder / "report.json", report_json(report))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}), need a writable folder") from error
    return folder / "report.html"


def _of_control(pictures: DecodedSet) -> list[str]:
    """What the figures of a control are not."""
    control = pictures.settings.get("settings", {}).get("control", "none")
    return [] if control == "none" else [f"control {control}: the column `decoded` is not of each stimulus's own fMRI"]


def _of_few_classes(true: Classified) -> list[str]:
    """Where chance may not hold: few target classes, of which a decoder may prefer one whatever it is shown."""
    n, num_classes = len(true.top_class), len(np.unique(true.top_class))
    if 4 * num_classes > n:
        return []
    return [
        f"n-way: {n} stimuli have {num_classes} target classes, so pictures of one of these may score above chance "
        "without any fMRI; compare with the controls"
    ]


def _sorted_grid(report: Report) -> np.ndarray:
    """Stimuli and samples, best first, at no more than `GRID_SIDE` pixels each: uint8 [H W 3]."""
    order, pictures = report.ranking(), report.pictures
    both = np.concatenate([pictures.stimuli[:, None], pictures.decoded], axis=1)[order]
    if both.shape[2] > GRID_SIDE:
        both = shrink(both.reshape(-1, *both.shape[2:]), GRID_SIDE).reshape(*both.shape[:2], GRID_SIDE, GRID_SIDE, 3)
    return reconstruction_grid(both[:, 0], both[:, 1:])


def _class_names(pictures: DecodedSet, true: Classified, classifier: Classifier) -> list[str]:
    """Name of the class of each stimulus: the data set's class, or what the classifier sees in the true picture."""
    ids = pictures.class_ids or true.top_class.tolist()
    return [_class_name(i, classifier.class_names or ()) for i in ids]


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
