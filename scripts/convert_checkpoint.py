"""Convert weights between the published files, this program's and safetensors, and say what matched."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mindvis.common.files import sha256
from mindvis.config.command_line import Parser, entry_point
from mindvis.config.tools import CHECKPOINTS, FORMS, SELECTED

EXAMPLE = """example:
  python scripts/convert_checkpoint.py pretrains/GOD/finetuned.pth decoder.safetensors \\
      --label2img pretrains/ldm/label2img --fmri-encoder pretrains/GOD/fmri_encoder.pth"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("source", help="published file, run or diffusers folder, exported model, .pt or .safetensors")
    parser.add_argument("target", nargs="?", help="file to write; without it the table is all that is done")
    parser.add_argument("--to", choices=FORMS, help="form of target; default: by its suffix; diffusers: a folder")
    parser.add_argument("--label2img", help="finetuned.pth only: label2img model.ckpt, for its config.yaml; or demo")
    parser.add_argument("--fmri-encoder", help="finetuned.pth only: the fmri_encoder.pth it came from, for its heads")
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, default="selected", help=SELECTED)
    return parser.parse_args(argv)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    # imported once the options are right: torch takes seconds
    from mindvis.checkpoints import blank_module, compare, complete_ldm, find_ldm, read_weights, weights_file
    from mindvis.checkpoints.builders import EXPECTED_MISSING
    from mindvis.checkpoints.formats import write_weights

    files = {"fmri_encoder": arguments.fmri_encoder, "label2img": arguments.label2img and find_ldm(arguments.label2img)}
    file = weights_file(arguments.source, arguments.checkpoint)
    weights = complete_ldm(read_weights(file), arguments.source, **files)
    report = replace(compare(weights.state_dict, blank_module(weights).state_dict()), dropped=weights.dropped)
    print(f"{arguments.source}: {weights.kind}")
    if Path(arguments.source).is_file():
        print(f"sha256 {sha256(arguments.source)}")
    else:
        print(f"weights of {file}")
    print(report.table())
    report.check(EXPECTED_MISSING[weights.kind], arguments.source)
    if arguments.target:
        write_weights(arguments.target, weights, arguments.to)
        print(f"written: {arguments.target}")


if __name__ == "__main__":
    sys.exit(main())
