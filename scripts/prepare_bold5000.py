"""BOLD5000: the stimulus folders -> img_dict_images.npy + img_dict_names.json, and a check of every subject."""

import argparse
from pathlib import Path

from mindvis.config.command_line import Parser, entry_point
from mindvis.data.bold5000 import STIMULI
from mindvis.prepare import bold5000

EXAMPLE = """example:
  python scripts/prepare_bold5000.py data/BOLD5000

The folder holds BOLD5000_Stimuli (its Scene_Stimuli/Presented_Stimuli has COCO, ImageNet and Scene) and
BOLD5000_GLMsingle_ROI_betas/py. Exit status: 0 all there, 1 response files are absent, 2 something does not fit.
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("root", type=Path, help="the folder BOLD5000")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures (default: 256)")
    parser.add_argument("--subjects", nargs="+", help="e.g. CSI1 CSI4 (default: all with presentation lists)")
    parser.add_argument("--from-pickle", type=Path, metavar="NPY", help="an img_dict.npy instead of the folders")
    parser.add_argument("--check", action="store_true", help="check only, against the pictures written before")
    return parser.parse_args(argv)


def run_images(args: argparse.Namespace, presentations: list[bold5000.Presentations]) -> None:
    """Check the presented names against the pictures, then write the pictures."""
    folder = args.root / STIMULI
    images = None if args.check else bold5000.open_images(folder, args.size, args.from_pickle)
    names = bold5000.read_names(folder) if images is None else images.names
    for shown in presentations:
        bold5000.check_names(args.root, shown, set(names))
    if images is not None:
        images.write(folder)
    print(f"{bold5000.IMAGE_FILE}: {len(names)} images")


@entry_point
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    subjects = args.subjects or bold5000.find_subjects(args.root)
    presentations = [bold5000.read_presentations(args.root, subject) for subject in subjects]
    checked = [bold5000.check_responses(args.root, shown) for shown in presentations]
    run_images(args, presentations)
    for shown, (voxels, absent) in zip(presentations, checked, strict=True):
        more = f", {len(absent)} response files absent ({absent[0].name} ...)" if absent else ""
        print(f"{bold5000.describe(args.root, shown)}, {sum(voxels.values())} voxels{more}")
    return 1 if any(absent for _, absent in checked) else 0


if __name__ == "__main__":
    raise SystemExit(main())
