"""What the figures of an audit amount to, by stated rules.

1. Information. In some space the decoded pictures are closer to their own stimuli than to others more often than the
   same pictures dealt anew (corrected p below .05), and better than every control (paired interval above 0).
   If not: `invention` where every space excludes a sizeable effect (upper limit of the area below .6).
2. Retrieval. Most decoded pictures are training pictures (lower limit of the share above 1/2), or in some space they
   are closer to the training picture most like the stimulus than to the stimulus, beyond accident.
3. Detail. Among pictures of one class the one seen is identified above accident (corrected p below .05, and an area of
   .55 or more) in some space: `reconstruction`. If not: `classification` where every space excludes a sizeable effect.
4. Whatever the data cannot decide is `undecided`, with what is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

ALPHA = 0.05
SIZEABLE = 0.6  # area under the curve that must lie above the interval before "nothing" is said
WORTH_NAMING = 0.55
RECONSTRUCTION, CLASSIFICATION, RETRIEVAL = "reconstruction", "classification", "retrieval"
INVENTION, UNDECIDED = "invention", "undecided"
VERDICTS = (RECONSTRUCTION, CLASSIFICATION, RETRIEVAL, INVENTION, UNDECIDED)


@dataclass(frozen=True)
class Finding:
    """One figure of an audit: a mean over n stimuli with its 95 % interval.

    `by_accident`: what it would be without what it looks for. `p`: of its permutation test, `p_holm` corrected for all
    tests of the audit. `d_prime`: of an area under the curve. None where there is none.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    by_accident: float | None = None
    p: float | None = None
    p_holm: float | None = None
    d_prime: float | None = None
    n: int = 0

    @property
    def above(self) -> bool:
        """Larger than by accident, corrected for the number of tests."""
        return self._differs and self.value > (self.by_accident or 0.0)

    @property
    def below(self) -> bool:
        return self._differs and self.value < (self.by_accident or 0.0)

    @property
    def _differs(self) -> bool:
        return self.p_holm is not None and self.p_holm < ALPHA

    def exceeds(self, level: float) -> bool:
        """Whether the whole interval lies above a level."""
        return self.low is not None and self.low > level

    def excludes(self, level: float) -> bool:
        """Whether the whole interval lies below a level."""
        return self.high is not None and self.high < level


def finding_text(finding: Finding | None) -> str:
    """`value [low, high]`, empty where there is no finding."""
    if finding is None:
        return ""
    span = "" if finding.low is None else f" [{finding.low:.2f}, {finding.high:.2f}]"
    return f"{finding.value:.3f}{span}" if abs(finding.value) < 10 else f"{finding.value:.1f}{span}"


Evidence = Mapping[str, Finding]


def of_kind(evidence: Evidence, kind: str) -> list[Finding]:
    """The findings `kind/<space>` in every space."""
    return [finding for name, finding in evidence.items() if name.split("/")[0] == kind]


def judge(evidence: Evidence, *, has_training: bool) -> tuple[str, list[str]]:
    """The verdict and the steps that led to it, a line each."""
    verdict, steps = _information(evidence)
    if verdict is not None:
        return verdict, steps
    if not has_training:
        return UNDECIDED, [*steps, "no training pictures were given, so retrieval cannot be told from the rest"]
    verdict, more = _retrieval(evidence)
    steps += more
    if verdict is not None:
        return verdict, steps
    verdict, more = _detail(evidence)
    return verdict, steps + more


def _information(evidence: Evidence) -> tuple[str | None, list[str]]:
    found = of_kind(evidence, "own_against_other")
    beaten = {f.name.split("/")[1]: True for f in found}  # in which spaces every control is
    for control in of_kind(evidence, "minus_control"):
        beaten[control.name.split("/")[1]] &= control.exceeds(0)
    proven = [f for f in found if f.above and beaten[f.name.split("/")[1]]]
    if proven:
        return None, [f"{_list(proven)}: the pictures carry information about what was seen"]
    if all(f.excludes(SIZEABLE) for f in found):
        return INVENTION, [f"{_list(found)}: no information about what was seen, and a sizeable one (.6) is excluded"]
    return UNDECIDED, [f"{_list(found)}: neither information nor its absence is shown; more stimuli would tell"]


def _retrieval(evidence: Evidence) -> tuple[str | None, list[str]]:
    copies = evidence["copies"]
    if copies.exceeds(0.5):
        return RETRIEVAL, [f"{_list([copies])}: most decoded pictures are training pictures"]
    lured = [f for f in of_kind(evidence, "truth_against_nearest_training") if f.below]
    if lured:
        line = "the pictures are more like the training picture nearest to the stimulus than like the stimulus"
        return RETRIEVAL, [f"{_list(lured)}: {line}"]
    if copies.high is not None and copies.high > 0.5:
        return UNDECIDED, [f"{_list([copies])}: half copies, half not"]
    return None, [f"{_list([copies])}: most decoded pictures are no training pictures"]


def _detail(evidence: Evidence) -> tuple[str, list[str]]:
    found = of_kind(evidence, "within_class")
    if not found:
        return UNDECIDED, ["no class with two test pictures is known, so the class cannot be told from the picture"]
    shown = [f for f in found if f.above and f.value >= WORTH_NAMING]
    if shown:
        return RECONSTRUCTION, [f"{_list(shown)}: the picture is identified among others of its class"]
    if all(f.excludes(SIZEABLE) for f in found):
        return CLASSIFICATION, [f"{_list(found)}: the class is right, the picture within it is not identified"]
    return UNDECIDED, [f"{_list(found)}: whether the picture within its class is identified is not shown; more stimuli"]


def _list(findings: list[Finding]) -> str:
    return ", ".join(f"{f.name} {f.value:.2f} [{f.low:.2f}, {f.high:.2f}]" for f in findings)
