"""Settings of scripts/figures.py."""

from dataclasses import dataclass, field

FIGURES = ("masked", "subjects", "consistency", "failures", "accuracy")


@dataclass
class PaperFiguresConfig:
    """Which figures of the paper, and what they are made from."""

    output: str = "figures"  # folder to write <figure>.png and <figure>.pdf to
    figures: list[str] = field(default_factory=lambda: list(FIGURES))  # masked subjects consistency failures accuracy
    run: str | None = None  # masked: run folder of pretrain_mbm
    checkpoint: str = "best"  # masked: best (by val/loss) | last
    num_rows: int = 3  # masked: held-out rows
    decoded: list[str] = field(default_factory=list)  # the others, one a subject: decoded folder, run or report.json
    labels: list[str] | None = None  # names of the subjects; null: as generate.json says
    stimuli: list[str] | None = None  # stimuli of subjects and consistency, by id; null: spread over all
    num_stimuli: int = 8  # rows of subjects, consistency and failures
    num_samples: int = 3  # subjects: decoded pictures of a stimulus in a block
    score: str | None = None  # accuracy and failures: name of a figure of the reports; null: their main score
    pixels: int = 128  # largest side of a picture
    seed: int = 0  # masked: the masks follow from it
