"""Installed versions of the project's dependencies, which results can depend on."""

import importlib.metadata
import re


def versions() -> dict[str, str]:
    """Installed version by name, for every package that the project itself depends on (its extras not counted)."""
    needed = importlib.metadata.requires("monosemantic-vision") or []
    names = [re.match(r"[\w.-]+", requirement)[0] for requirement in needed if "extra ==" not in requirement]
    return {name: importlib.metadata.version(name) for name in sorted(names)}
