"""Published claims (`book/claims.yaml`), what notebooks measured of them, and a verdict for each."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from experiments.results import read_results
from lib.metrics.intervals import Interval

AGREES, AS_NULL, DIFFERS, UNDECIDED = "agrees", "agrees, and so does its null", "differs", "undecided"
OURS, CHECK, UNTESTABLE, NOT_RUN = (
    "a question of ours",
    "holds by construction",
    "cannot be tested here",
    "not run here",
)
KINDS = ("claim", "question", "check")


@dataclass(frozen=True)
class Measurement:
    """A value with its 95 % interval (None where there is none) and the notebook that measured it.

    null: the same quantity by the same code on a null; None where the chapter measures none.
    """

    value: float
    low: float | None
    high: float | None
    notebook: str
    null: Interval | None = None


@dataclass(frozen=True)
class Claim:
    """One entry of `claims.yaml`, whose head describes the fields."""

    id: str
    paper: str
    where: str
    claim: str
    published: str
    quantity: str
    unit: str
    measured_by: str
    kind: str = "claim"
    agrees_when: dict | None = None
    chance: float | None = None
    planted: float | None = None
    set: date | None = None
    seen: bool | None = None
    untestable: Mapping[str, str] = field(default_factory=dict)

    def verdict(self, measured: Measurement | None, world: str = "") -> str:
        """The verdict of a measurement on the claim in a world.

        agrees: the whole interval meets `agrees_when`, and the interval of the null, if measured, does not reach it.
        differs: the whole interval misses it. undecided: in between, or no interval.
        """
        if measured is None:
            return NOT_RUN
        if self.agrees_when is None:
            return OURS
        if world in self.untestable:
            return UNTESTABLE
        if self.kind == "check":
            return CHECK if self._meets(measured.value, measured.value) else DIFFERS
        if measured.low is None or measured.high is None:
            return UNDECIDED
        if self._meets(measured.low, measured.high):
            return AS_NULL if measured.null is not None and self._reached(measured, measured.null) else AGREES
        low, high = self._bounds()
        return DIFFERS if measured.high <= low or measured.low >= high else UNDECIDED

    def _meets(self, least: float, most: float) -> bool:
        low, high = self._bounds()
        return low < least and most < high

    def _reached(self, measured: Measurement, null: Interval) -> bool:
        """Whether the interval of the null overlaps that of the measurement or lies beyond it."""
        low, high = (null.value if bound is None else bound for bound in (null.low, null.high))
        above, below = math.isfinite(self._bounds()[0]), math.isfinite(self._bounds()[1])
        return (not above or high >= measured.low) and (not below or low <= measured.high)

    def _bounds(self) -> tuple[float, float]:
        if "between" in self.agrees_when:
            return tuple(self.agrees_when["between"])
        return self.agrees_when.get("above", -math.inf), self.agrees_when.get("below", math.inf)


def load_claims(path: Path) -> list[Claim]:
    """Read and check `claims.yaml`. Raises ValueError for an incomplete entry and for a repeated id."""
    import yaml

    claims = [_checked(entry, path) for entry in yaml.safe_load(Path(path).read_text(encoding="utf-8"))]
    ids = [claim.id for claim in claims]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: the id {twice[0]!r} is given twice.")
    return claims


def _checked(entry: dict, path: Path) -> Claim:
    name = entry.get("id", entry)
    try:
        claim = Claim(**entry)
    except TypeError as error:
        raise ValueError(f"{path}: the claim {name!r} is not as the file's head says: {error}.") from None
    wrong = next(_faults(claim), None)
    if wrong:
        raise ValueError(f"{path}: the claim {name!r}: {wrong}.")
    return claim


def _faults(claim: Claim) -> Iterator[str]:
    """Sentences on what is wrong with an entry."""
    rule = claim.agrees_when
    if claim.unit not in ("share", "number"):
        yield f"the unit is share or number, not {claim.unit!r}"
    if claim.kind not in KINDS:
        yield f"the kind is one of {', '.join(KINDS)}, not {claim.kind!r}"
    if rule is not None and set(rule) not in ({"above"}, {"below"}, {"between"}):
        yield "agrees_when is one of above, below and between"
    if rule is None and claim.kind != "question":
        yield "agrees_when is missing"
    if rule is not None and None in (claim.set, claim.seen):
        yield "set and seen are missing: when the rule was set, and whether a result had been seen"
    if claim.kind == "claim" and None in (claim.chance, claim.planted):
        yield "chance and planted are missing: the value without the effect, and with it"


def measurements(results: Path) -> dict[str, Measurement]:
    """What the notebooks of a profile measured, by claim id: `claims` and `claim_nulls` of every `results/*.json`."""
    found = {}
    for file in sorted(Path(results).glob("*.json")):
        claims, nulls = intervals_in(file)
        for name, interval in claims.items():
            if interval.value is not None:
                null = nulls.get(name)
                known = null is not None and null.value is not None
                found[name] = Measurement(*interval, notebook=file.stem, null=null if known else None)
    return found


def intervals_in(file: Path) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """`claims` and `claim_nulls` of a file of results. Raises ValueError that names a file which holds others."""
    content = read_results(file)
    try:
        parts = [content.get(part, {}).items() for part in ("claims", "claim_nulls")]
        return tuple({name: Interval(**Interval(**numbers).claim()) for name, numbers in part} for part in parts)
    except (AttributeError, TypeError):
        raise ValueError(f"{file} holds claims that are no value with low and high: run its chapter again.") from None
