"""Evaluation as the settings ask for it: from an EvaluateConfig to a report on disk and in wandb."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from mindvis.common.devices import choose_device, describe_arithmetic, matmul_precision
from mindvis.common.errors import InputError
from mindvis.common.launched import Process
from mindvis.common.shares import Shares, parts_folder
from mindvis.config.decoding import AuditConfig, EvaluateConfig
from mindvis.config.invocation import made_now
from mindvis.config.loading import part
from mindvis.config.schemas import LoggingConfig
from mindvis.data import PairedDataset
from mindvis.data.images import chosen_images
from mindvis.data.open import open_pairs, saved_data
from mindvis.evaluation import Protocol, Report, evaluate_folder, load_classifier, write_report
from mindvis.evaluation.audit import Audit
from mindvis.evaluation.audit_features import choose_spaces
from mindvis.evaluation.audit_folders import Audited, Training, audit_sets, pooled, read_training, with_classes
from mindvis.evaluation.audit_verdict import Finding
from mindvis.evaluation.noise_ceiling import noise_ceilings
from mindvis.evaluation.pictures import DecodedSet, read_controls, read_decoded, read_scored
from mindvis.evaluation.report_page import write_audit
from mindvis.evaluation.report_stages import stage_curves, stages_of
from mindvis.training.wandb_runs import check_logging, open_wandb, source_runs, staged_in


def evaluate(config: EvaluateConfig) -> tuple[Report, Path] | None:
    """Score the pictures of `config.decoded` and write the report; returns it and its page. Raises InputError.

    Of several processes the first one does so, with what each has measured; the others return None.
    """
    output, process = Path(config.output or config.decoded), Process.from_environment()
    check_logging(config.logging)
    _check_weights(config)
    device = choose_device(config.device, process.rank)
    classifier = load_classifier(config.classifier, config.classifier_weights, device)
    protocol = part(Protocol, config)
    parts = parts_folder(output, [asdict(protocol), classifier.weights_sha256], process)
    shares = Shares() if process.count == 1 else Shares(parts, process, config.wait_minutes)
    training = audit_training(config.training_images or "none", read_scored(config.decoded, config.images))
    with matmul_precision(config.matmul_precision, device):
        report = evaluate_folder(
            config.decoded,
            classifier=classifier,
            protocol=protocol,
            stimuli=config.images,
            controls={Path(folder).name: folder for folder in config.controls} or None,
            baselines=config.baselines,
            training_images=training,
            shares=shares,
        )
    if report is None:
        return None
    shares.remove()
    report.machine = describe_arithmetic(device, "32-true", config.matmul_precision)
    report.stages = stages_of(report, made_now() | {"machine": report.machine})
    stage_a, curves = masked_reconstruction(report), stage_curves(report.stages)
    page = write_report(report, output, masked_reconstruction=stage_a, curves=curves)
    send_to_wandb(report, output, config.logging)
    return report, page


def _check_weights(config: EvaluateConfig) -> None:
    """Raise InputError for weights that are named and absent: a measure is skipped only where none are named."""
    given = {"lpips_weights": config.lpips_weights, "fid_weights": config.fid_weights, **config.features}
    for setting, path in given.items():
        if path is not None and not Path(path).exists():
            raise InputError(f"{setting}: {path}: no such file; needed: weights, or the setting left out")


def masked_reconstruction(report: Report) -> bytes | None:
    """The last Stage A plot of the run that the decoder's encoder came from, where it is still there."""
    folder = report.settings["generate"].get("stage_a_run")
    plots = sorted(Path(folder).glob("figures/masked_reconstruction-*.png")) if folder else []
    return plots[-1].read_bytes() if plots else None


def send_to_wandb(report: Report, output: Path, settings: LoggingConfig) -> None:
    """The report as tables in a run of its own, linked to the trainings behind it. Raises InputError."""
    if settings.wandb == "disabled":
        return
    config = report.settings | {"provenance": report.provenance}
    with _board("evaluate", output, settings, report.settings["generate"], config) as run:
        log_report(report, run)


@contextmanager
def _board(stage: str, output: Path, settings: LoggingConfig, generated: dict, config: dict) -> Iterator[Any]:
    """A wandb run of its own, linked to the trainings behind the pictures that `generated` (generate.json) tells of."""
    decoder = generated.get("settings", {}).get("run")
    name = f"{Path(decoder).name if decoder else output.name}-{stage}"
    config = config | {"data": generated.get("data", {}).get("settings")}
    sources = source_runs(decoder)
    with (
        staged_in(output / "wandb"),
        open_wandb(settings, output, stage=stage, name=name, config=config, sources=sources) as run,
    ):
        yield run


def log_report(report: Report, run: Any) -> None:
    """Log a report that has its pictures to an open wandb run (offline runs included), best stimulus first."""
    import wandb

    columns: list[str | int] = list(vars(report.figures[0]))  # those of report.csv
    figures = wandb.Table(columns=columns, data=[list(vars(figure).values()) for figure in report.figures])
    run.log({"evaluation/pictures": picture_table(report), "evaluation/figures": figures})
    for figure in report.figures:
        run.summary[f"evaluation/{figure.set}/{figure.name}"] = figure.value


def picture_table(report: Report) -> Any:
    """A row a stimulus: id, class, the stimulus, its samples, its score by every measure, the main one first."""
    import wandb

    pictures = report.pictures
    samples = [f"sample {k}" for k in range(pictures.decoded.shape[1])]
    measures = sorted(report.per_stimulus[0]["scores"], key=lambda name: name != report.main)
    table = wandb.Table(columns=["stimulus_id", "class", "stimulus", *samples, *measures])
    for index in report.ranking():
        row = report.per_stimulus[index]
        images = [wandb.Image(image) for image in (pictures.stimuli[index], *pictures.decoded[index])]
        table.add_data(row["stimulus_id"], row["class"], *images, *(row["scores"][name] for name in measures))
    return table


def audit(config: AuditConfig) -> tuple[Audited, Path]:
    """Audit the pictures of `config.decoded` and write audit.json and audit.html; returns the audit and its page.

    Raises InputError.
    """
    check_logging(config.logging)
    pictures = read_scored(config.decoded, config.images)
    controls = {Path(folder).name: read_decoded(folder, config.images) for folder in config.controls}
    controls = controls or read_controls(config.decoded)
    if config.other_subjects:
        pictures = pooled([pictures, *(read_decoded(folder, config.images) for folder in config.other_subjects)])
        of_subjects = [controls, *map(read_controls, config.other_subjects)]
        shared = [name for name in controls if all(name in each for each in of_subjects)]
        controls = {name: pooled([each[name] for each in of_subjects]) for name in shared}
    others = {_short_name(folder, config.others): read_decoded(folder, config.images) for folder in config.others}
    training = audit_training(config.training, pictures)
    if config.classes is not None:
        pictures, training = with_classes(pictures, training, config.classes)
    found = audit_sets(
        pictures,
        controls,
        others,
        training=training,
        spaces=choose_spaces(None if config.features == "auto" else config.features),
        exposure=config.exposure,
        seed=config.seed,
    )
    add_noise_ceiling(found.main, pictures, config.seed)
    if config.other_subjects:
        found.main.caveats.append(f"training pictures and noise ceiling are those of the data of {config.decoded}")
    output = Path(config.output or config.decoded)
    page = write_audit(found, str(pictures.path), output)
    audit_to_wandb(found, pictures, output, config.logging)
    return found, page


def _short_name(folder: str, folders: list[str]) -> str:
    """The last part of a folder's name, or the last two where others end alike."""
    alike = [other for other in folders if Path(other).name == Path(folder).name]
    return Path(folder).name if len(alike) == 1 else "/".join(Path(folder).parts[-2:])


def audit_training(source: str, pictures: DecodedSet) -> Training:
    """Training pictures as the setting says: `auto` are those of the data the pictures were decoded from, if known."""
    if source == "none":
        return Training()
    if source != "auto":
        return read_training(source, pictures.stimuli.shape[1])
    if "data" not in pictures.settings:
        return Training(note=f"{pictures.path} does not say which data it was decoded from; needed: training=PICTURES")
    try:
        train = _decoded_data(pictures)[0]
    except InputError as error:
        return Training(note=f"training pictures not found: {error}")
    shown = np.unique(train.stimulus)
    whole = len(shown) == len(train.stimuli)
    images = train.stimuli if whole else chosen_images(train.stimuli, shown)  # a copy, of those in memory
    if train.class_ids is None:
        return Training(images)
    class_of = dict(zip(train.stimulus.tolist(), train.class_ids, strict=True))
    return Training(images, [class_of[place] for place in shown.tolist()])


def _decoded_data(pictures: DecodedSet, **changes: Any) -> tuple[PairedDataset, PairedDataset, PairedDataset | None]:
    """The pairs that a folder of `generate` was decoded from."""
    settings = pictures.settings["data"]["settings"] | changes
    return open_pairs(saved_data(settings), pictures.settings["patch_size"])


def add_noise_ceiling(found: Audit, pictures: DecodedSet, seed: int) -> None:
    """Add what the repeats of the test stimuli allow, where the data is known and has single trials."""
    if "data" not in pictures.settings:
        return
    try:
        test = _decoded_data(pictures, include_single_trials=True)[1]
        for finding in noise_ceilings(test, seed):
            found.evidence[finding.name] = finding
    except InputError as error:
        found.caveats.append(f"no noise ceiling: {error}")


def audit_to_wandb(found: Audited, pictures: DecodedSet, output: Path, settings: LoggingConfig) -> None:
    """The verdict and the figures as a run of its own. Raises InputError."""
    if settings.wandb == "disabled":
        return
    import wandb

    columns: list[str | int] = [each.name for each in fields(Finding)]
    rows = [list(vars(finding).values()) for finding in found.main.evidence.values()]
    with _board("audit", output, settings, pictures.settings, {"audit": found.main.settings}) as run:
        run.log({"audit/evidence": wandb.Table(columns=columns, data=rows)})
        run.summary["audit/verdict"] = found.main.verdict
        for finding in found.main.evidence.values():
            run.summary[f"audit/{finding.name}"] = finding.value
