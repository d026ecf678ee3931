"""The last lines of the demo: how it decodes, what a linear classifier reads off the same fMRI, the grid, the score.

Example:
  python scripts/demo_summary.py --config configs/evaluate_demo.yaml

Prints them, and writes them to summary.txt beside report.json.
"""

from collections.abc import Sequence
from pathlib import Path

from mindvis.common.errors import InputError
from mindvis.common.files import write_text
from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.decoding import EvaluateConfig


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(EvaluateConfig, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    from mindvis.data.open import open_pairs, saved_data
    from mindvis.decoding.categories import ridge_accuracy
    from mindvis.decoding.settle import how_decoded
    from mindvis.evaluation.compare import read_report

    folder, ways = Path(config.output or config.decoded), config.num_ways[0]
    report = read_report(folder)
    figures = [figure for figure in report["figures"] if figure["name"].startswith(f"{ways}_way_top_1/")]
    by_set = {figure["set"]: figure for figure in figures}
    generated = report["settings"].get("generate", {})
    if not {"decoded", "shuffled"} <= by_set.keys() or "data" not in generated:
        needed = f"the scores of decoded and shuffled pictures of generate, with num_ways=[{ways}]"
        raise InputError(f"{folder}: its report is not that of the demo; needed: {needed}")
    decoded, shuffled = by_set["decoded"], by_set["shuffled"]
    parts = [each for each in report.get("by_training", []) if each["name"] == decoded["name"]]
    apart = {(each["classes"], each["set"]): each for each in parts}
    if apart:  # the first line is that of new pictures of trained classes
        chance = {"chance": decoded["chance"]}
        decoded, shuffled = apart["trained", "decoded"] | chance, apart["trained", "shuffled"]
    pairwise = {each["name"]: each["value"] for each in report["figures"] if each["set"] == "decoded"}
    train, test, _ = open_pairs(saved_data(generated["data"]["settings"]), generated["patch_size"])
    known = set(train.class_ids or ())  # of the others ridge has no example
    ridge = ridge_accuracy(train, test, num_ways=ways)[[c in known for c in test.class_ids or ()]].mean()
    score = f"{ways}-way top-1 {decoded['value']:.2f} [{decoded['low']:.2f}, {decoded['high']:.2f}] decoded"
    text = (
        f"decoder: {how_decoded(generated)}; "
        f"pairwise pcc {pairwise['pairwise_pcc']:.2f}, ssim {pairwise['pairwise_ssim']:.2f}\n"
        f"ridge classifier on the same fMRI, without pictures: {ways}-way top-1 {ridge:.2f}\n"
        f"pictures: {folder / 'grid.png'}\n"
        f"demo: {score}, {shuffled['value']:.2f} shuffled, {decoded['chance']:.2f} chance"
    )
    if apart:
        unseen = apart["unseen", "decoded"]
        score = f"{ways}-way top-1 {unseen['value']:.2f} [{unseen['low']:.2f}, {unseen['high']:.2f}] decoded"
        text += f"\nunseen classes: {score}, {apart['unseen', 'shuffled']['value']:.2f} shuffled"
    write_text(folder / "summary.txt", text + "\n")
    print(text)


if __name__ == "__main__":
    raise SystemExit(main())
