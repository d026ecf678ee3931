"""How often decoded pictures carry the category that was shown, beside logistic regression on the same voxels.

A line a folder (a fold), and the mean over folds with its 95 % interval over test rows.
"""

import argparse
from collections.abc import Sequence

from mindvis.config.command_line import Parser, entry_point

EXAMPLE = """example:
  python scripts/score_categories.py runs/haxby/fold_0/finetune_ldm/decoded runs/haxby/fold_1/finetune_ldm/decoded"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("decoded", nargs="+", help="folders that generate wrote, one a fold")
    parser.add_argument("--classifier", default="demo", help="of the pictures (default: demo)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    return parser.parse_args(argv)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    # imported once the options are right: torch takes seconds
    import numpy as np

    from mindvis.decoding.categories import LOGISTIC, score_categories
    from mindvis.evaluation.classifiers import load_classifier
    from mindvis.evaluation.statistics import interval, paired_difference

    classifier = load_classifier(arguments.classifier)
    scores = [score_categories(folder, classifier) for folder in arguments.decoded]
    for folder, score in zip(arguments.decoded, scores, strict=True):
        print(f"{folder}: " + ", ".join(f"{share.mean():.2f} {name}" for name, share in score.shares.items()))
    names = [name for name in scores[0].shares if all(name in score.shares for score in scores)]
    all_rows = {name: np.concatenate([score.shares[name] for score in scores]) for name in names}
    for name, share in all_rows.items():
        low, high = interval(share, arguments.seed)
        print(f"{name}: {share.mean():.3f} [{low:.3f}, {high:.3f}] of {len(share)} rows, chance {scores[0].chance:.3f}")
    difference, low, high, p = paired_difference(all_rows["decoded"], all_rows[LOGISTIC], arguments.seed)
    print(f"decoded minus {LOGISTIC}: {difference:+.3f} [{low:+.3f}, {high:+.3f}], p {p:.3g}")


if __name__ == "__main__":
    raise SystemExit(main())
