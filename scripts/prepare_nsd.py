"""Natural Scenes Dataset, as downloaded: betas of chosen voxels, z-scored a session -> <out>/subj01/ ..."""

import argparse
from pathlib import Path

from mindvis.config.command_line import Parser, entry_point, positive
from mindvis.config.tools import POLICIES

EXAMPLE = """example:
  python scripts/prepare_nsd.py raw/NSD --out data/NSD --subjects subj01 --workers 2

raw/NSD holds nsddata, nsddata_betas and nsddata_stimuli as their authors distribute them. Sessions that are there
already are kept, so the same command goes on where it was stopped. The pictures are not copied: a link names them.
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("raw", type=Path, help="the folder with nsddata, nsddata_betas and nsddata_stimuli")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, e.g. data/NSD")
    parser.add_argument("--subjects", nargs="+", default=["subj01"], help="e.g. subj01 subj02 (default: subj01)")
    parser.add_argument(
        "--rois",
        nargs="+",
        default=["nsdgeneral", "V1", "V2", "V3", "hV4"],
        help="nsdgeneral, V1v ... hV4, V1 V2 V3, HCP_MMP1/<area>, <atlas>/<number> (default: %(default)s)",
    )
    parser.add_argument("--betas", default="betas_fithrf_GLMdenoise_RR", help="version (default: %(default)s)")
    parser.add_argument("--sessions", type=int, help="the first so many (default: all that are there)")
    parser.add_argument("--bad-voxels", choices=POLICIES, default="zero", help="without a signal (default: zero)")
    parser.add_argument("--workers", type=positive, default=1, help="sessions at a time (default: 1, 0.6 GB each)")
    return parser.parse_args(argv)


@entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    # imported once the options are right: torch takes seconds
    from mindvis.data.reading import PassedOver
    from mindvis.prepare import nsd

    passed = PassedOver()
    print(nsd.link_stimuli(args.raw, args.out))
    options = {"rois": args.rois, "version": args.betas, "num_sessions": args.sessions}
    options |= {"policy": args.bad_voxels, "workers": args.workers}
    for subject in args.subjects:
        print(f"{subject}: {nsd.prepare_subject(args.raw, subject, args.out, passed, **options)}", flush=True)
    print("\n".join([f"found {len(args.subjects)} subjects", *passed.lines()]))


if __name__ == "__main__":
    raise SystemExit(main())
