"""One fold of a block design (signal, labels, runs) as data to train and decode on, each category shown by drawings."""

import argparse
from collections.abc import Sequence

from mindvis.config.command_line import Parser, entry_point

EXAMPLE = """example (docs/real_example.md goes on from here):
  python scripts/prepare_blocks.py raw/haxby2001.npz data/haxby/fold_0.npz --held-out 0 1

The .npz holds signal [t v] (volumes in the order of time), labels [t] (rest where nothing is shown) and runs [t].
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("source", help=".npz with signal, labels and runs")
    parser.add_argument("out", help="file to write, in the layout of own data (data.name=npz)")
    parser.add_argument("--held-out", nargs="+", type=int, required=True, metavar="RUN", help="runs to be decoded")
    parser.add_argument("--lag", type=int, default=2, help="volumes by which the signal follows (default: 2)")
    drawn = "kind of drawing of a category, as face=sun (default: those of Haxby's eight categories)"
    parser.add_argument("--kinds", nargs="+", default=[], metavar="LABEL=KIND", help=drawn)
    parser.add_argument("--seed", type=int, default=0, help="of the drawings (default: 0)")
    return parser.parse_args(argv)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    # imported once the options are right: scipy takes a second
    from mindvis.simulation.block_design import HAXBY, read_recording, rows_of, write_fold

    kinds = HAXBY | dict(item.partition("=")[::2] for item in arguments.kinds)
    rows = rows_of(read_recording(arguments.source), arguments.lag)
    blocks = write_fold(arguments.out, rows, arguments.held_out, kinds=kinds, seed=arguments.seed)
    print(f"written: {arguments.out}, {len(rows.fmri)} volumes of {rows.fmri.shape[1]} voxels, {blocks} test blocks")


if __name__ == "__main__":
    raise SystemExit(main())
