"""Whole numbers that callers give: refused at the door, in one sentence."""

from numbers import Integral

from lib.files import quoted


def check_count(name: str, given: int | None, of: str = "pictures", least: int = 1) -> int | None:
    """A number of things, or None where none was given, as it is. Raises ValueError for what is no such number."""
    if given is not None and (isinstance(given, bool) or not isinstance(given, Integral) or given < least):
        raise ValueError(f"{name} is a number of {of}, at least {least}, not {quoted(given)}")
    return given


def check_seed(seed: int) -> int:
    """A seed as it is. Raises ValueError for what is no whole number from 0."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"seed is a whole number, at least 0, not {quoted(seed)}")
    return seed
