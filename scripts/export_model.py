"""Put a tuned decoder into one folder for others: weights, settings, model card; and its ridge, if it keeps one."""

import argparse
import sys
from collections.abc import Sequence

from mindvis.common.errors import InputError
from mindvis.config.command_line import Parser, entry_point
from mindvis.config.tools import CHECKPOINTS, EXPORTS, SELECTED

EXAMPLE = """example:
  python scripts/export_model.py runs/finetune_ldm shared/god_sbj_3 \\
      --data god --subjects sbj_3 --roi VC --report runs/finetune_ldm/decoded/report.json"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("source", help="run folder of finetune_ldm, or a published finetuned.pth")
    parser.add_argument("folder", help="folder to write, which generate.py takes as run=")
    parser.add_argument("--data", help="data set: god, bold5000, simulated ...; default: as source says")
    parser.add_argument("--subjects", nargs="+", help="whose fMRI it decodes; default: as source says")
    parser.add_argument("--roi", nargs="+", help="region or regions of the voxels; default: as source says")
    parser.add_argument("--report", help="report.json of evaluate.py, for the figures of the model card")
    parser.add_argument("--label2img", help="finetuned.pth only: the label2img model.ckpt, for its config.yaml")
    parser.add_argument("--fmri-encoder", help="finetuned.pth only: the fmri_encoder.pth it came from, for its heads")
    parser.add_argument("--format", choices=EXPORTS, default="mindvis", help="of the folder; default: mindvis")
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, default="selected", help=SELECTED)
    return parser.parse_args(argv)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    # imported once the options are right: torch takes seconds
    from mindvis import checkpoints
    from mindvis.evaluation.compare import read_report

    files = {"fmri_encoder": arguments.fmri_encoder, "label2img": arguments.label2img}
    file = checkpoints.weights_file(arguments.source, arguments.checkpoint)
    weights = checkpoints.complete_ldm(checkpoints.read_weights(file), arguments.source, **files)
    given = {"name": arguments.data, "subjects": arguments.subjects, "roi": arguments.roi}
    known = checkpoints.decoder_data(weights)
    kept = (weights.settings.get("fmri") or {}).get("formats") or {}  # a published file keeps none, and may say less
    for subject in arguments.subjects or []:
        if kept and subject not in kept:
            raise InputError(f"--subjects names {subject!r}; needed: some of {', '.join(kept)}, whose fMRI it decodes")
    written = checkpoints.exporter(arguments.format)(
        arguments.folder,
        weights,
        data=known | {name: value for name, value in given.items() if value},
        report=read_report(arguments.report) if arguments.report else None,
        source=arguments.source,
    )
    print(f"written: {arguments.folder} ({', '.join(written)}), weights of {file}")


if __name__ == "__main__":
    sys.exit(main())
