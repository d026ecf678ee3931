"""Put a tuned decoder into one folder for others: weights, settings and a model card."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mindvis.checkpoints import Weights, export_model, read_ldm
from mindvis.cli import entry_point
from mindvis.errors import InputError

EXAMPLE = """example:
  python scripts/export_model.py runs/finetune_ldm shared/god_sbj_3 \\
      --data god --subjects sbj_3 --roi VC --report runs/finetune_ldm/decoded/report.json"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="run folder of finetune_ldm, or a published finetuned.pth")
    parser.add_argument("folder", help="folder to write, which generate.py takes as run=")
    parser.add_argument("--data", help="data set it was tuned on: god, bold5000, simulated, ...")
    parser.add_argument("--subjects", nargs="+", default=[], help="whose fMRI it decodes")
    parser.add_argument("--roi", default="VC", help="region of the voxels (default: VC)")
    parser.add_argument("--report", help="report.json of evaluate.py, for the scores of the model card")
    parser.add_argument("--label2img", help="finetuned.pth only: the label2img model.ckpt, for its config.yaml")
    parser.add_argument("--fmri-encoder", help="finetuned.pth only: the fmri_encoder.pth it came from, for its heads")
    parser.add_argument("--checkpoint", default="last", help="which one of a run folder (default: last)")
    return parser.parse_args(argv)


def read_scores(path: str | None) -> dict:
    try:
        return json.loads(Path(path).read_text()) if path else {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as the report.json of evaluate.py ({error})") from error


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    files = {"fmri_encoder": arguments.fmri_encoder, "label2img": arguments.label2img}
    ldm_config, encoder, flags, state = read_ldm(arguments.source, **files, checkpoint=arguments.checkpoint)
    weights = Weights("ldm", state, {"encoder": encoder, **flags, "ldm_config": ldm_config})
    data = {"name": arguments.data or "", "subjects": arguments.subjects, "roi": arguments.roi}
    export_model(arguments.folder, weights, data=data, scores=read_scores(arguments.report))
    print(f"written: {arguments.folder}")


if __name__ == "__main__":
    sys.exit(main())
