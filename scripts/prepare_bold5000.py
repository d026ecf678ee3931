"""BOLD5000: the stimulus folders -> img_dict_images.npy + img_dict_names.json, and a check of every subject."""

import argparse
from pathlib import Path

from mindvis.config.command_line import Parser, entry_point

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


@entry_point
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    # imported once the options are right: torch takes seconds
    from mindvis.data.bold5000 import IMAGE_FILE, STIMULI, read_images
    from mindvis.data.reading import PassedOver
    from mindvis.prepare import bold5000

    passed = PassedOver()
    found = bold5000.find_subjects(args.root, passed)
    folder = args.root / STIMULI
    images = None if args.check else bold5000.open_images(folder, passed, args.size, args.from_pickle)
    names = read_images(folder)[1] if images is None else images.names
    subjects = [bold5000.check_subject(args.root, name, names, passed) for name in args.subjects or found]
    if images is not None:
        images.write(folder)
    print(f"{IMAGE_FILE}: {len(names)} images")
    for subject in subjects:
        absent = subject.absent
        more = f", {len(absent)} response files absent ({absent[0].name} ...)" if absent else ""
        print(f"{subject.describe()}, {sum(subject.voxels.values())} voxels{more}")
    print("\n".join([f"found {len(found)} subjects", *passed.lines()]))
    return 1 if any(subject.absent for subject in subjects) else 0


if __name__ == "__main__":
    raise SystemExit(main())
