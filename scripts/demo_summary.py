"""The last lines of the demo: how it decodes, what a linear classifier reads off the same fMRI, the grid, the score.

Example:
  python scripts/demo_summary.py --config configs/evaluate_demo.yaml

Prints them, and writes them to summary.txt beside report.json.
"""

from collections.abc import Sequence
from pathlib import Path

from mindvis.common.files import write_text
from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.decoding import EvaluateConfig


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(EvaluateConfig, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    from mindvis.decoding.summary import summary_of

    folder = Path(config.output or config.decoded)
    text = summary_of(folder, config.num_ways[0])
    write_text(folder / "summary.txt", text + "\n")
    print(text)


if __name__ == "__main__":
    raise SystemExit(main())
