"""Artifacts on disk: addressed by the spec that made them, complete or absent, never half-written.

One rule holds for all of them (activation stores, SAEs, feature tables): a folder holds the artifact that was last
finished for it, and whatever was there of another spec lies beside it, as `<folder>.<its hash>`. See `places`.
"""

import ast
import hashlib
import json
from pathlib import Path

from lib.artifacts.digests import (
    carried_digest,
    check_beside,
    check_file,
    check_files,
    digest_file,
    digest_of,
    load_tensors,
    save_tensors,
)
from lib.artifacts.places import alone, claim, discarding, folder_name, is_complete, opened, publish
from lib.artifacts.writing import Damaged, naming_a_full_disk, read_meta, replacing, sound_meta, write_meta

__all__ = [
    "Damaged",
    "alone",
    "carried_digest",
    "check_beside",
    "check_file",
    "check_files",
    "claim",
    "code_fingerprint",
    "digest_file",
    "digest_of",
    "discarding",
    "folder_name",
    "is_complete",
    "load_tensors",
    "modules_of",
    "naming_a_full_disk",
    "opened",
    "publish",
    "read_meta",
    "replacing",
    "save_tensors",
    "sound_meta",
    "spec_hash",
    "write_meta",
]

_HOME = Path(__file__).parents[2]  # of lib and of the packages beside it


def spec_hash(spec: dict) -> str:
    """16 hex digits that name a spec: SHA-256 of its canonical JSON (sorted keys, no spaces).

    Raises ValueError when the spec holds something JSON has no word for.
    """
    try:
        text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except TypeError as error:
        raise ValueError(
            f"a spec may hold only JSON values (str, int, float, bool, None, list, dict): {error}"
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_fingerprint(*modules: str) -> str:
    """16 hex digits of what the named modules or packages do: `code_fingerprint("lib.activations", "menagerie")`.

    Comments, layout and docstrings do not count, so an artifact is redone when its code changed and only then.
    """
    digest = hashlib.sha256()
    for module in modules:
        if not (sources := _sources(module)):
            raise ValueError(f"there is no module {module!r} to take a fingerprint of")
        for source in sources:
            digest.update(source.relative_to(_HOME).as_posix().encode())
            digest.update(_without_docstrings(ast.parse(source.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()[:16]


def modules_of(*classes: type) -> list[str]:
    """Modules beside `lib` in which classes are defined, for `code_fingerprint`; those of Python are left out."""
    return sorted({home for one in classes if _sources(home := one.__module__)})


def _sources(module: str) -> list[Path]:
    path = _HOME.joinpath(*module.split("."))
    if path.is_dir():
        return sorted(path.rglob("*.py"))
    return [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else []


def _without_docstrings(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            del node.body[0]
    return ast.dump(tree)
