"""Checks of integer arguments: counts and seeds."""

from numbers import Integral

from storage.files import quoted


def check_count(name: str, given: int | None, of: str = "pictures", least: int = 1) -> int | None:
    """Return `given` if it is None or an integer of at least `least`. Raises ValueError otherwise."""
    if given is not None and (isinstance(given, bool) or not isinstance(given, Integral) or given < least):
        raise ValueError(f"{name} must be an integer of at least {least} ({of}), not {quoted(given)}")
    return given


def check_seed(seed: int) -> int:
    """Return `seed` if it is an integer of at least 0. Raises ValueError otherwise."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, not {quoted(seed)}")
    return seed
