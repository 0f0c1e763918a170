"""Parameters of notebooks: check and convert values by the types that the parameters cell declares.

The notebooks' cells declare `int`, `float`, `str`, `bool`, `dict`, the refined numbers below, and lists of these. Both
the notebooks' own check and the command that runs them convert values here.
"""

import math
from collections.abc import Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from experiments.notices import show_as_sentences


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, written as `text` in messages; `open`: without `low` itself."""

    text: str
    low: float
    high: float = math.inf
    open: bool = False

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high and not (self.open and number == self.low)


@dataclass(frozen=True)
class Words:
    """Texts among those that `known()` lists. A list of them must not be empty."""

    known: Callable[[], Collection[str]]

    @property
    def text(self) -> str:
        return f"one of {', '.join(self.known())}"

    def __contains__(self, word: str) -> bool:
        return word in self.known()


@dataclass(frozen=True)
class SiteNames:
    """Names of sites, as `Site.parse` reads them. A list of them must not be empty."""

    text: str = "a site such as 7.resid_post, or proj"

    def __contains__(self, name: str) -> bool:
        from lib.encoders.sites import Site as LibSite  # imports torch: `book.tools.run --list` needs none

        try:
            return bool(LibSite.parse(name))
        except ValueError:
            return False


def _trained_kinds() -> list[str]:
    from lib.sae.objectives import trained_kinds

    return sorted(trained_kinds())


Count = Annotated[int, Range("a whole number, 1 or more", 1)]
Natural = Annotated[int, Range("a whole number, 0 or more", 0)]
Positive = Annotated[float, Range("a number above 0", 0, open=True)]
NonNegative = Annotated[float, Range("a number, 0 or more", 0)]
Share = Annotated[float, Range("a number from 0 to 1", 0, 1)]
Kind = Annotated[str, Words(_trained_kinds)]
Site = Annotated[str, SiteNames()]
OnError = Annotated[str, Words(lambda: ("raise", "skip"))]

TYPES = {kind.__name__: kind for kind in (int, float, str, bool, list, dict)} | {
    "Count": Count, "Natural": Natural, "Positive": Positive, "NonNegative": NonNegative, "Share": Share,
    "Kind": Kind, "Site": Site, "OnError": OnError,
}  # fmt: skip
LARGEST = 10**15  # number of any parameter, in size: no count of steps that can be run is larger
_PLAIN = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", dict: "a mapping"}


def check_parameters(namespace: MutableMapping[str, Any]) -> None:
    """Check and convert a notebook's parameters: `check_parameters(globals())`; a Count 1e3 becomes 1000, a list 8 [8].

    Types are those of the annotations in the parameters cell. Raises ValueError, one sentence, on the first value that
    does not fit. Later warnings of the notebook are shown as sentences (`experiments.notices`).
    """
    show_as_sentences()
    for name, kind in namespace.get("__annotations__", {}).items():
        if name in namespace and _is_known(kind):
            namespace[name] = read(name, kind, namespace[name])


def _is_known(kind: Any) -> bool:
    return kind in TYPES.values() or (get_origin(kind) is list and _is_known(get_args(kind)[0]))


def kind_of(annotation: str) -> Any:
    """The type that a parameters cell writes as `annotation`: "Count", "list[str]". Raises ValueError for others."""
    outer, _, inner = annotation.replace(" ", "").removesuffix("]").partition("[")
    if outer not in TYPES or (inner and (outer != "list" or inner not in TYPES)):
        raise ValueError(
            f"{annotation!r} is no type of a parameter; known are {', '.join(TYPES)} and list[...] of them"
        )
    return list[TYPES[inner]] if inner else TYPES[outer]


def read(name: str, kind: Any, value: Any) -> Any:
    """`value` converted to a parameter's type; text is parsed as on a command line.

    A list may be given as "8,16" (commas with no space behind them), as "[8, 16]", or as one value. Raises ValueError:
    "k must be a whole number, 1 or more, not 2.5".
    """
    if kind is list or get_origin(kind) is list:
        item_kind = get_args(kind)[0] if get_args(kind) else str
        limits, base = get_args(item_kind)[1:], get_args(item_kind)[0] if get_args(item_kind) else item_kind
        items = _items(name, value.replace(", ", ",") if base in (int, float) and isinstance(value, str) else value)
        if not items and any(isinstance(limit, Words | SiteNames) for limit in limits):
            raise ValueError(f"{name} must hold {limits[0].text}, and it is empty")
        return items if kind is list else [read(name, get_args(kind)[0], item) for item in items]
    limits = get_args(kind)[1] if get_args(kind) else None
    base = get_args(kind)[0] if get_args(kind) else kind
    try:
        result = _READERS[base](value)
        if limits is not None and result not in limits:
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        wanted = limits.text if limits else _PLAIN[base]
        wanted += f", at most {LARGEST:.0e}" if isinstance(error, OverflowError) else ""
        raise ValueError(f"{name} must be {wanted}, not {_quoted(value)}") from None
    return result


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _items(name: str, value: Any) -> list:
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, str):
        return [value]
    if value.lstrip().startswith("["):
        try:
            return _yaml(value, list)
        except TypeError:
            raise ValueError(f"{name} must be a list such as [1, 2], not {_quoted(value)}") from None
    parts = value.replace(", ", "\0 ").split(",")  # the comma of "forest, meadow" separates nothing
    return [part.replace("\0", ",") for part in parts if part.strip()]


def _number(value: Any) -> int | float:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:  # NaN is neither
        raise TypeError
    if abs(value) > LARGEST:
        raise OverflowError
    return value


def _whole(value: Any) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    return str(value)


def _truth(value: Any) -> bool:
    value = {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
    if not isinstance(value, bool):
        raise TypeError
    return value


def _mapping(value: Any) -> dict:
    value = _yaml(value, dict) if isinstance(value, str) else value
    if not isinstance(value, dict):
        raise TypeError
    return value


def _yaml(text: str, wanted: type) -> Any:
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise TypeError(str(error)) from error
    if not isinstance(value, wanted):
        raise TypeError
    return value


_READERS = {int: _whole, float: _number, str: _text, bool: _truth, dict: _mapping}
