"""The report as wandb sees it: a table with pictures, a table of figures, and the main figures as a summary."""

from typing import Any

import wandb

from mindvis.evaluation.report import Report


def log_report(report: Report, run: Any) -> None:
    """Log a report that has its pictures to an open wandb run (offline runs included), best stimulus first."""
    run.log({"evaluation/pictures": picture_table(report), "evaluation/figures": figure_table(report)})
    for figure in report.figures:
        run.summary[f"evaluation/{figure.set}/{figure.name}"] = figure.value


def picture_table(report: Report) -> wandb.Table:
    """A row a stimulus: id, class, the stimulus, its samples, its score by every measure, the main one first."""
    pictures = report.pictures
    samples = [f"sample {k}" for k in range(pictures.decoded.shape[1])]
    measures = sorted(report.per_stimulus[0]["scores"], key=lambda name: name != report.main)
    table = wandb.Table(columns=["stimulus_id", "class", "stimulus", *samples, *measures])
    for index in report.ranking():
        row = report.per_stimulus[index]
        images = [wandb.Image(image) for image in (pictures.stimuli[index], *pictures.decoded[index])]
        table.add_data(row["stimulus_id"], row["class"], *images, *(row["scores"][name] for name in measures))
    return table


def figure_table(report: Report) -> wandb.Table:
    """A row a figure, with the columns of report.csv."""
    columns = list(vars(report.figures[0]))
    return wandb.Table(columns=columns, data=[list(vars(figure).values()) for figure in report.figures])
