"""Evaluation as the settings ask for it: from an EvaluateConfig to a report on disk and in wandb."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mindvis.common.devices import choose_device
from mindvis.common.errors import InputError
from mindvis.common.shares import Process, Shares, parts_folder
from mindvis.config.loading import part
from mindvis.config.schemas import DataConfig, EvaluateConfig, LoggingConfig
from mindvis.data.open import open_pairs
from mindvis.evaluation import Protocol, Report, evaluate_folder, load_classifier, write_report
from mindvis.evaluation.pictures import SETTINGS, read_images, read_settings
from mindvis.training.wandb_runs import check_wandb, open_wandb, source_runs, staged_in


def evaluate(config: EvaluateConfig) -> tuple[Report, Path] | None:
    """Score the pictures of `config.decoded` and write the report; returns it and its page. Raises InputError.

    Of several processes the first one does so, with what each has measured; the others return None.
    """
    output, process = Path(config.output or config.decoded), Process.from_environment()
    check_wandb(config.logging)
    device = choose_device(config.device, process.rank)
    classifier = load_classifier(config.classifier, config.classifier_weights, device)
    protocol = part(Protocol, config)
    shares = _shares(output, process, config.wait_minutes, [asdict(protocol), classifier.weights_sha256])
    report = evaluate_folder(
        config.decoded,
        classifier=classifier,
        protocol=protocol,
        stimuli=config.images,
        controls={Path(folder).name: folder for folder in config.controls} or None,
        training_images=_training_images(config),
        shares=shares,
    )
    if report is None:
        return None
    shares.remove()
    page = write_report(report, output, masked_reconstruction=masked_reconstruction(report))
    send_to_wandb(report, output, config.logging)
    return report, page


def _shares(output: Path, process: Process, wait_minutes: float, settings: list) -> Shares:
    if process.count == 1:
        return Shares()
    return Shares(parts_folder(output, settings, process), process, wait_minutes)


def _training_images(config: EvaluateConfig) -> np.ndarray | None:
    """Pictures for the copying check: from a file, or (`auto`) those of the data set the pictures were decoded from."""
    if config.training_images != "auto":
        return read_images(config.training_images) if config.training_images else None
    generated = read_settings(Path(config.decoded) / SETTINGS)
    if "data" not in generated:
        raise InputError(f"{config.decoded}: does not say which data it was decoded from; needed: training_images=FILE")
    train = open_pairs(DataConfig(**generated["data"]["settings"]), generated["patch_size"])[0]
    return np.asarray(train.stimuli)


def masked_reconstruction(report: Report) -> bytes | None:
    """The last Stage A plot of the run that the decoder's encoder came from, where it is still there."""
    folder = report.settings["generate"].get("stage_a_run")
    plots = sorted(Path(folder).glob("figures/masked_reconstruction-*.png")) if folder else []
    return plots[-1].read_bytes() if plots else None


def send_to_wandb(report: Report, output: Path, settings: LoggingConfig) -> None:
    """The report as tables in a run of its own, linked to the trainings behind it. Raises InputError."""
    if settings.wandb == "disabled":
        return
    generated = report.settings["generate"]
    decoder = generated.get("settings", {}).get("run")
    config = report.settings | {"data": generated.get("data", {}).get("settings"), "provenance": report.provenance}
    names = {"stage": "evaluate", "name": f"{Path(decoder).name if decoder else output.name}-evaluate"}
    sources = source_runs(decoder)
    with staged_in(output / "wandb"), open_wandb(settings, output, **names, config=config, sources=sources) as run:
        log_report(report, run)


def log_report(report: Report, run: Any) -> None:
    """Log a report that has its pictures to an open wandb run (offline runs included), best stimulus first."""
    run.log({"evaluation/pictures": picture_table(report), "evaluation/figures": figure_table(report)})
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


def figure_table(report: Report) -> Any:
    """A row a figure, with the columns of report.csv."""
    import wandb

    columns = list(vars(report.figures[0]))
    return wandb.Table(columns=columns, data=[list(vars(figure).values()) for figure in report.figures])
