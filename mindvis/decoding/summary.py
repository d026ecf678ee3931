"""The last lines of the demo: how it decodes, and its score beside that of a linear classifier on the same fMRI."""

from pathlib import Path

from mindvis.common.errors import InputError
from mindvis.data.open import open_pairs, saved_data
from mindvis.decoding.categories import ridge_accuracy
from mindvis.decoding.settle import how_decoded
from mindvis.evaluation.compare import read_report


def summary_of(folder: Path, num_ways: int) -> str:
    """What the report of decoded pictures says in a few lines, that of `num_ways`-way top-1 last.

    Raises InputError where there is no report, or none of pictures that `generate` decoded, with a shuffled control.
    """
    report = read_report(folder)
    figures = [figure for figure in report["figures"] if figure["name"].startswith(f"{num_ways}_way_top_1/")]
    by_set = {figure["set"]: figure for figure in figures}
    generated = report["settings"].get("generate", {})
    pairwise = {each["name"]: each["value"] for each in report["figures"] if each["set"] == "decoded"}
    if not {"decoded", "shuffled"} <= by_set.keys() or "data" not in generated or "pairwise_ssim" not in pairwise:
        needed = f"{num_ways}-way, pcc and ssim scores of pictures that generate decoded, and of the shuffled control"
        raise InputError(f"{folder}: its report does not hold what is summed up; needed: {needed}")
    decoded, shuffled = by_set["decoded"], by_set["shuffled"]
    parts = [each for each in report.get("by_training", []) if each["name"] == decoded["name"]]
    apart = {(each["classes"], each["set"]): each for each in parts}
    if apart:  # the first line is that of new pictures of trained classes
        chance = {"chance": decoded["chance"]}
        decoded, shuffled = apart["trained", "decoded"] | chance, apart["trained", "shuffled"]
    train, test, _ = open_pairs(saved_data(generated["data"]["settings"]), generated["patch_size"])
    known = set(train.class_ids or ())  # of the others ridge has no example
    ridge = ridge_accuracy(train, test, num_ways=num_ways)[[c in known for c in test.class_ids or ()]].mean()
    lines = [
        f"decoder: {how_decoded(generated)}; "
        f"pairwise pcc {pairwise['pairwise_pcc']:.2f}, ssim {pairwise['pairwise_ssim']:.2f}",
        f"ridge classifier on the same fMRI, without pictures: {num_ways}-way top-1 {ridge:.2f}",
        f"pictures: {folder / 'grid.png'}",
        f"demo: {_scores(decoded, shuffled, num_ways)}, {decoded['chance']:.2f} chance",
    ]
    if apart:
        lines.append(f"unseen classes: {_scores(apart['unseen', 'decoded'], apart['unseen', 'shuffled'], num_ways)}")
    return "\n".join(lines)


def _scores(decoded: dict, shuffled: dict, num_ways: int) -> str:
    score = f"{decoded['value']:.2f} [{decoded['low']:.2f}, {decoded['high']:.2f}]"
    return f"{num_ways}-way top-1 {score} decoded, {shuffled['value']:.2f} shuffled"
