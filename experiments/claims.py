"""Published claims beside what a profile measured: `book/claims.yaml`, the notebooks' results, and a verdict each."""

import math
from dataclasses import dataclass
from pathlib import Path

from experiments.results import read_results

AGREES, DIFFERS, UNDECIDED, OURS, NOT_RUN = "agrees", "differs", "undecided", "no published value", "not run here"


@dataclass(frozen=True)
class Measurement:
    """A value with its 95 % interval (None where there is none) and the notebook that measured it."""

    value: float
    low: float | None
    high: float | None
    notebook: str


@dataclass(frozen=True)
class Claim:
    """One entry of `claims.yaml`; its comment there says what each field holds."""

    id: str
    paper: str
    where: str
    claim: str
    published: str
    quantity: str
    unit: str
    measured_by: str
    agrees_when: dict | None = None

    def verdict(self, measured: Measurement | None) -> str:
        """Whether the whole interval meets `agrees_when` (agrees), misses it (differs) or neither (undecided)."""
        if measured is None:
            return NOT_RUN
        if self.agrees_when is None:
            return OURS
        low, high = self._bounds()
        least = measured.value if measured.low is None else measured.low
        most = measured.value if measured.high is None else measured.high
        if low < least and most < high:
            return AGREES
        return DIFFERS if most <= low or least >= high else UNDECIDED

    def _bounds(self) -> tuple[float, float]:
        if "between" in self.agrees_when:
            return tuple(self.agrees_when["between"])
        return self.agrees_when.get("above", -math.inf), self.agrees_when.get("below", math.inf)


def load_claims(path: Path) -> list[Claim]:
    """Read and check `claims.yaml`. Raises ValueError for an entry that is not whole, and for an id given twice."""
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
    if claim.unit not in ("share", "number"):
        raise ValueError(f"{path}: the unit of the claim {name!r} is share or number, not {claim.unit!r}.")
    if claim.agrees_when is not None and set(claim.agrees_when) not in ({"above"}, {"below"}, {"between"}):
        raise ValueError(f"{path}: agrees_when of the claim {name!r} is one of above, below and between.")
    return claim


def measurements(results: Path) -> dict[str, Measurement]:
    """What the notebooks of a profile measured, by claim id: the key `claims` of every `results/*.json`."""
    found = {}
    for file in sorted(Path(results).glob("*.json")):
        content = read_results(file)
        for name, numbers in content.get("claims", {}).items():
            if numbers["value"] is not None:
                found[name] = Measurement(numbers["value"], numbers["low"], numbers["high"], file.stem)
    return found
