"""Figures of the paper from finished runs, each as PNG and PDF.

Examples:
  python scripts/figures.py run=runs/pretrain_hcp decoded=[runs/s1/decoded,runs/s2/decoded] output=figures
  python scripts/figures.py figures=[accuracy] decoded=[runs/s1/decoded/report.json,runs/s2/decoded/report.json]

masked: masked-voxel reconstructions with their correlations; subjects: the same stimuli decoded from every subject;
consistency: all samples of a stimulus; failures: the worst stimuli; accuracy: a bar a subject with interval and chance.
"""

from collections.abc import Sequence

from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.tools import PaperFiguresConfig


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(PaperFiguresConfig, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    from mindvis.figures.make import make_figures

    written = make_figures(config)
    print(f"figures: {', '.join(path.name for path in written)} in {config.output}")


if __name__ == "__main__":
    raise SystemExit(main())
