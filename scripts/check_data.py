"""What is there of HCP, GOD, BOLD5000, MOSAIC, NSD or own data, what is missing and where from, what is broken."""

import argparse
from pathlib import Path

from mindvis.config.command_line import Parser, entry_point

DATASETS = {"hcp": Path("HCP/npz"), "god": Path("Kamitani/npz"), "bold5000": Path("BOLD5000")}
LARGE = {"mosaic": Path("MOSAIC"), "nsd": Path("NSD")}  # checked where their folder is there, or asked for
OWN = {"npz": Path()}  # where --root is the file itself
EXAMPLE = """examples:
  python scripts/check_data.py --root data --datasets god
  python scripts/check_data.py --root my_data.npz             # own data, one file

Each line begins with ok, differs (not the published size), missing or broken. Exit status: 0 complete, 1 incomplete,
2 broken. The network is never used.
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__, EXAMPLE)
    root = "folder of the data sets (default: data); of npz the file"
    parser.add_argument("--root", type=Path, default=Path("data"), help=root)
    default = "default: hcp god bold5000, and mosaic nsd where their folders are; npz where --root is a file"
    parser.add_argument("--datasets", nargs="+", choices=[*DATASETS, *LARGE, *OWN], help=default)
    parser.add_argument("--any-size", action="store_true", help="do not compare with the published sizes")
    parser.add_argument("--quick", action="store_true", help="leave out NaN, constant voxels and hashes")
    return parser.parse_args(argv)


@entry_point
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    # imported once the options are right: torch takes seconds
    from mindvis.prepare.check import CheckSettings
    from mindvis.prepare.check_datasets import check_bold5000, check_god, check_hcp
    from mindvis.prepare.check_trials import check_mosaic, check_npz, check_nsd

    checks = {"hcp": check_hcp, "god": check_god, "bold5000": check_bold5000, "npz": check_npz}
    checks |= {"mosaic": check_mosaic, "nsd": check_nsd}
    settings = CheckSettings(published_sizes=not args.any_size, read_values=not args.quick)
    status = 0
    there = [name for name, folder in LARGE.items() if (args.root / folder).is_dir()]
    for name in args.datasets or (OWN if args.root.is_file() else [*DATASETS, *there]):
        report = checks[name](args.root / (DATASETS | LARGE | OWN)[name], settings)
        print("\n".join(report.lines()), end="\n\n")
        status = max(status, report.status)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
