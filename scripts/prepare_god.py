"""Generic Object Decoding: Subject*.h5 (or MATLAB v7.3) and the stimulus pictures -> Kamitani/npz/."""

import argparse
from pathlib import Path

from mindvis.common.errors import InputError
from mindvis.config.command_line import Parser, entry_point
from mindvis.config.tools import POLICIES, SCALINGS

EXAMPLE = """example:
  python scripts/prepare_god.py --fmri raw/GOD --stimuli raw/GOD/images --class-index imagenet_class_index.json \\
      --out data/Kamitani/npz
--stimuli: folders training and test of n01518878_5958.JPEG ...; without it --labels or --out holds the label tables.
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("--out", type=Path, required=True, help="folder to write, e.g. data/Kamitani/npz")
    parser.add_argument("--fmri", type=Path, help="folder of Subject1.h5 ... Subject5.h5 (or .mat, saved with -v7.3)")
    parser.add_argument("--stimuli", type=Path, help="folder with the folders training and test")
    parser.add_argument("--labels", type=Path, help="folder of label tables, which set the order (default: sorted)")
    parser.add_argument("--class-index", type=Path, help="imagenet_class_index.json, number -> [wnid, name]")
    parser.add_argument("--same-as", type=Path, help="lines `wnid,number`: the class that a wnid not among them joins")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures (default: 256)")
    parser.add_argument("--subjects", nargs="+", type=int, help="subject numbers (default: all that are there)")
    parser.add_argument("--scaling", choices=SCALINGS, default="train", help="z-score of a voxel (default: train)")
    parser.add_argument("--bad-voxels", choices=POLICIES, default="zero", help="constant or NaN (default: zero)")
    return parser.parse_args(argv)


@entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if not (args.fmri or args.stimuli):
        raise InputError("nothing to do: needs --fmri, --stimuli or both")
    # imported once the options are right: torch takes seconds
    from mindvis.data.reading import PassedOver
    from mindvis.prepare import god

    passed = PassedOver()
    subjects = god.find_subjects(args.fmri, passed, args.subjects) if args.fmri else {}
    if args.stimuli:
        names = god.prepare_stimuli(args.stimuli, args.out, passed, args.size, args.labels)
        print(f"images_256.npz: {len(names['train'])} training and {len(names['test'])} test images")
    if args.stimuli and args.class_index:
        line = god.prepare_class_index(args.class_index, args.out, names, god.read_same_as(args.same_as))
        print(f"imagenet_class_index.json: {line}")
    for number, source in subjects.items():
        target, labels = args.out / f"sbj_{number}.npz", args.labels or args.out
        line = god.prepare_subject(source, target, labels, scaling=args.scaling, policy=args.bad_voxels)
        print(f"sbj_{number}.npz: {line}")
    print("\n".join([f"found {len(subjects)} subjects", *passed.lines()]))


if __name__ == "__main__":
    raise SystemExit(main())
