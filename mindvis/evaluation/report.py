"""The report: figures with their uncertainty, and everything a reader needs to judge them.

`report.json`, schema `mindvis.report/1`:

- `figures`: list of {`name` (with classifier or network), `set` (decoded, shuffled, mean_fmri, ridge_latent ...),
  `value` (mean over stimuli and sample sets), `low`, `high` (95 % bootstrap over stimuli, null where none is possible),
  `deviation` (over sample sets, null for one), `best` (the best sample set), `chance` (null where there is none),
  `larger_is_better`, `n` (stimuli), `num_samples`, `seed` (of the bootstrap)}
- `differences`: list of {`name`, `control` (or baseline), `value` (decoded minus that, paired over stimuli), `low`,
  `high`, `p` (by flipped signs), `p_holm` (corrected for the number of differences from controls, or from baselines),
  `better` (the interval lies on the better side
  of 0), `n`}
- `by_training`: list of {`name`, `set`, `classes` (trained or unseen by the brain decoder), `value`, `low`, `high`,
  `n`}, where test pictures are of both kinds
- `per_stimulus`: list of {`stimulus_id`, `class`, `scores`: {figure name: mean over samples}, `stimulus_seen_as`,
  `seen_as`: the class that the classifier sees in the true picture and in each sample}, decoded set only
- `per_control`: {control or baseline: such a list}, with the scores that it has
- `per_class`: list of {`class`, `n`, `scores`}
- `copying`: the copying check, or null
- `leakage`: list of {`what`, `touched` (true, false, null = not recorded), `text`}
- `skipped`, `caveats`: lists of lines; `main`: name of the figure that orders the pictures
- `stages`: list of {`stage`, `folder`, `command`, `started`, `finished_at`, `git_revision`, `settings`, `data` ...}:
  the trainings behind the pictures, the first one first, then what made each set of pictures, and the evaluation
- `settings`, `provenance`: plain values, as run; `machine`: device, driver, precision and matmul precision of the
  evaluation, null where they were not recorded
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from mindvis.common.files import to_csv
from mindvis.evaluation.audit_folders import Audited
from mindvis.evaluation.measures import Scores
from mindvis.evaluation.pictures import DecodedSet
from mindvis.evaluation.statistics import estimate, holm, interval, paired_difference

SCHEMA = "mindvis.report/1"
NOT_IN_JSON = ("pictures", "controls", "baselines", "audited")


@dataclass
class Figure:
    """One number of the report; see the schema above."""

    name: str
    set: str
    value: float
    low: float | None
    high: float | None
    deviation: float | None
    best: float
    chance: float | None
    larger_is_better: bool
    n: int
    num_samples: int
    seed: int


@dataclass
class Difference:
    """Decoded minus a control in one figure; see the schema above."""

    name: str
    control: str
    value: float
    low: float
    high: float
    p: float
    p_holm: float
    better: bool
    n: int


@dataclass
class Report:
    """All of an evaluation; the sets of pictures and `audited` are for the page, not part of report.json."""

    main: str
    figures: list[Figure]
    per_stimulus: list[dict]
    per_class: list[dict]
    leakage: list[dict]
    settings: dict
    provenance: dict
    pictures: DecodedSet
    skipped: list[str] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)
    copying: dict | None = None
    per_control: dict[str, list[dict]] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    by_training: list[dict] = field(default_factory=list)
    stages: list[dict] = field(default_factory=list)
    machine: dict | None = None
    controls: dict[str, DecodedSet] = field(default_factory=dict)
    baselines: dict[str, DecodedSet] = field(default_factory=dict)
    audited: Audited | None = None

    def figure(self, name: str, of: str = "decoded") -> Figure:
        """The figure of that name and set. Raises KeyError where there is none."""
        found = self.figure_of(name, of)
        if found is None:
            raise KeyError(f"{name} of {of}")
        return found

    def figure_of(self, name: str, of: str) -> Figure | None:
        """The figure of that name and set, None where the set was spared it."""
        return next((figure for figure in self.figures if (figure.name, figure.set) == (name, of)), None)

    def other_sets(self) -> list[str]:
        """Names of the controls and, behind them, of the baselines."""
        return list(dict.fromkeys(figure.set for figure in self.figures if figure.set != "decoded"))

    def against(self, name: str, control: str) -> Difference | None:
        """The difference from a control in the figure of that name, None where it has none."""
        return next((d for d in self.differences if (d.name, d.control) == (name, control)), None)

    def beats_controls(self, name: str) -> bool:
        """Whether the decoded pictures are better than every control that has that figure, and there is one."""
        found = [each for each in self.differences if each.name == name and each.control not in self.baselines]
        return bool(found) and all(difference.better for difference in found)

    def ranking(self) -> list[int]:
        """Positions of the stimuli, best decoded first by the main figure."""
        scores = [-row["scores"][self.main] for row in self.per_stimulus]
        return [int(i) for i in np.argsort(scores, kind="stable")]

    def as_dict(self) -> dict:
        """The content of report.json."""
        plain = {key: value for key, value in vars(self).items() if key not in NOT_IN_JSON}
        lists = {name: [asdict(each) for each in plain[name]] for name in ("figures", "differences")}
        return {"schema": SCHEMA} | plain | lists


def summarise(scores: Scores, of: str, *, n: int, seed: int, num_bootstrap: int = 10_000) -> Figure:
    """The figure of a measure: [n k] -> mean, interval over stimuli, deviation over sample sets, best set."""
    values = scores.values
    of_sets = values.mean(axis=0)
    low, high = interval(values.mean(axis=1), seed, num_bootstrap) if len(values) > 1 else (None, None)
    return Figure(
        name=scores.name,
        set=of,
        value=float(of_sets.mean()),
        low=low,
        high=high,
        deviation=float(of_sets.std(ddof=1)) if len(of_sets) > 1 else None,
        best=float(of_sets.max() if scores.larger_is_better else of_sets.min()),
        chance=scores.chance,
        larger_is_better=scores.larger_is_better,
        n=n,
        num_samples=values.shape[1],
        seed=seed,
    )


def differences(
    scores: dict[str, list[Scores]], others: Iterable[str], *, seed: int, num_bootstrap: int = 10_000
) -> list[Difference]:
    """Decoded minus each of the `others`, for every figure both have a value a stimulus of."""
    found = []
    for control in others:
        of_control = {each.name: each for each in scores[control]}
        for own in scores["decoded"]:
            other = of_control.get(own.name)
            if other is None or len(own.values) < 2 or len(other.values) != len(own.values):
                continue
            pair = own.values.mean(axis=1), other.values.mean(axis=1)
            value, low, high, p = paired_difference(*pair, seed, num_bootstrap)
            better = low > 0 if own.larger_is_better else high < 0
            found.append(Difference(own.name, control, value, low, high, p, p, better, len(own.values)))
    for difference, p_holm in zip(found, holm([each.p for each in found]), strict=True):
        difference.p_holm = p_holm
    return found


def by_training(
    tables: dict[str, list[dict]], class_ids: Sequence[int] | None, trained: Sequence[int] | None, seed: int
) -> list[dict]:
    """Figures of the test pictures of trained and of unseen classes, apart; empty where all are of one kind.

    `tables`: set -> its stimulus table, in the order of `class_ids`; `trained`: classes of the training pictures.
    """
    if class_ids is None or trained is None:
        return []
    known = np.isin(class_ids, trained)
    if known.all() or not known.any():
        return []
    found = []
    for of, table in tables.items():
        for name in table[0]["scores"]:
            values = np.array([row["scores"][name] for row in table])
            for classes, chosen in (("trained", known), ("unseen", ~known)):
                mean = estimate(values[chosen], seed)
                span = {"value": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}
                found.append({"name": name, "set": of, "classes": classes, **span})
    return found


def main_figure(scores: Sequence[Scores], class_ids: Sequence[int] | None, *, imagined: bool = False) -> str:
    """Name of the figure that heads the report: n-way, or, without annotated classes, pairwise identification.

    Of what was `imagined`, where no picture was shown, n-way with the annotated class as the target.
    """
    labelled = [each.name for each in scores if each.name.startswith("labelled_")]
    if imagined and labelled:
        return labelled[0]
    pairwise = [each.name for each in scores if each.name.startswith("pairwise_")]
    if class_ids is not None or not pairwise:
        return scores[0].name
    return "pairwise_pcc" if "pairwise_pcc" in pairwise else pairwise[0]


def stimulus_table(scores: Iterable[Scores], ids: list[str], classes: list[str]) -> list[dict]:
    """A row a stimulus, with the mean over its samples of every measure that has one."""
    columns = {s.name: s.values.mean(axis=1) for s in scores if len(s.values) == len(ids)}
    return [
        {"stimulus_id": ids[i], "class": classes[i], "scores": {name: float(col[i]) for name, col in columns.items()}}
        for i in range(len(ids))
    ]


def class_table(rows: list[dict]) -> list[dict]:
    """Means of the stimulus table by class, in the order of the names."""
    table = []
    for name in sorted({row["class"] for row in rows}):
        members = [row["scores"] for row in rows if row["class"] == name]
        means = {key: float(np.mean([member[key] for member in members])) for key in members[0]}
        table.append({"class": name, "n": len(members), "scores": means})
    return table


def figures_csv(figures: Iterable[Figure]) -> str:
    """A line a figure, with a header."""
    return to_csv(list(Figure.__dataclass_fields__), map(asdict, figures))


def text_table(report: Report) -> str:
    """The figures as lines for a terminal, controls, baselines and chance beside the decoded value, then caveats."""
    sets = report.other_sets()
    rows = [["", "decoded", "95 % interval", "+- sets", "best set", *sets, "chance"]]
    for figure in report.figures:
        if figure.set != "decoded":
            continue
        best = figure.best if figure.num_samples > 1 else None
        of_sets = [report.figure_of(figure.name, of) for of in sets]
        values = [None if other is None else other.value for other in of_sets]
        numbers = [figure.deviation, best, *values, figure.chance]
        rows.append([figure.name, short_number(figure.value), interval_text(figure), *map(short_number, numbers)])
    tables = [aligned(rows)]
    if report.differences:
        tables += ["", aligned(_difference_rows(report), num_names=2), ""]
    if report.by_training:
        tables += [aligned(_training_rows(report)), ""]
    found = report.audited
    verdict = [] if found is None else [f"audit: {found.main.verdict} ({found.main.steps[-1]})"]
    return "\n".join([*tables, *verdict, *report.caveats, *report.skipped])


def _training_rows(report: Report) -> list[list[str]]:
    """The main figure of every set, for trained and unseen classes."""
    rows = [["classes", *dict.fromkeys(each["set"] for each in report.by_training), "n"]]
    for classes in ("trained", "unseen"):
        of_main = [each for each in report.by_training if (each["classes"], each["name"]) == (classes, report.main)]
        cells = [f"{each['value']:.3f} [{each['low']:.3f}, {each['high']:.3f}]" for each in of_main]
        rows.append([f"{report.main}, {classes} classes", *cells, str(of_main[0]["n"])])
    return rows


def _difference_rows(report: Report) -> list[list[str]]:
    rows = [["decoded minus", "", "difference", "95 % interval", "p", "p (Holm)"]]
    for each in report.differences:
        span = f"[{each.low:+.3f}, {each.high:+.3f}]"
        rows.append([each.name, each.control, f"{each.value:+.3f}", span, f"{each.p:.4f}", f"{each.p_holm:.4f}"])
    return rows


def aligned(rows: Sequence[Sequence[str]], num_names: int = 1) -> str:
    """Rows of a table as lines of text, a column under another: the first `num_names` to the left, numbers right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [str.ljust] * num_names + [str.rjust] * (len(widths) - num_names)
    lines = [[put(cell, width) for put, cell, width in zip(sides, row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def short_number(value: float | None) -> str:
    """Three decimals, or none from a hundred on."""
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def interval_text(figure: Figure) -> str:
    """`[low, high]`, empty where there is no interval."""
    return "" if figure.low is None else f"[{short_number(figure.low)}, {short_number(figure.high)}]"
