"""Short digests of what an artifact depends on: its spec, and the code that makes it."""

import ast
import hashlib
import json
from pathlib import Path
from threading import Lock

_HOME = Path(__file__).parents[1]  # of this package and of those beside it
# Python 3.11 counts the depth of all threads that parse in one place, and raises SystemError (python/cpython#106905)
_PARSING = Lock()


def spec_hash(spec: dict) -> str:
    """16 hex digits that name a spec: SHA-256 of its canonical JSON (sorted keys, no spaces).

    Raises ValueError when the spec holds a value that JSON cannot represent.
    """
    try:
        text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except TypeError as error:
        raise ValueError(
            f"a spec may hold only JSON values (str, int, float, bool, None, list, dict): {error}"
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def meta_head(spec: dict, made_by: str) -> dict:
    """The beginning of an artifact's meta.json."""
    return {"spec": spec, "hash": spec_hash(spec), "made_by": made_by}


def code_fingerprint(*modules: str) -> str:
    """16 hex digits of the code of modules or packages: `code_fingerprint("lib.activations", "menagerie")`.

    Comments, layout and docstrings do not count, so an artifact is redone only when its code has changed.
    """
    digest = hashlib.sha256()
    for module in modules:
        if not (sources := _sources(module)):
            raise ValueError(f"there is no module {module!r} to take a fingerprint of")
        for source in sources:
            digest.update(source.relative_to(_HOME).as_posix().encode())
            with _PARSING:
                tree = ast.parse(source.read_text(encoding="utf-8"))
            digest.update(_without_docstrings(tree).encode())
    return digest.hexdigest()[:16]


def modules_of(*classes: type) -> list[str]:
    """Modules of this project in which classes are defined, for `code_fingerprint`; all other modules are left out."""
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
