"""Artifacts on disk: addressed by the spec that made them, complete or absent, never half-written."""

import ast
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LIB = Path(__file__).parent


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
    """16 hex digits of what the named modules or packages of lib do: `code_fingerprint("activations", "menagerie")`.

    Comments, layout and docstrings do not count, so an artifact is redone when its code changed and only then.
    """
    digest = hashlib.sha256()
    for module in modules:
        for source in _sources(module.removeprefix("lib.")):
            digest.update(source.relative_to(_LIB).as_posix().encode())
            digest.update(_without_docstrings(ast.parse(source.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()[:16]


def _sources(module: str) -> list[Path]:
    path = _LIB.joinpath(*module.split("."))
    if path.is_dir():
        return sorted(path.rglob("*.py"))
    if path.with_suffix(".py").is_file():
        return [path.with_suffix(".py")]
    raise ValueError(f"lib has no module {module!r} to take a fingerprint of")


def _without_docstrings(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            del node.body[0]
    return ast.dump(tree)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary sibling of `path`, to be written as a file or made a folder, then renamed over `path`.

    On any error the temporary is removed and `path` is as it was; a full disk raises OSError (ENOSPC) in one sentence.
    Raises ValueError before a folder that is not empty and holds no artifact (no `meta.json`) would be replaced.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    replaced = path.with_name(f".{path.name}.{os.getpid()}.replaced")
    _remove(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if path.is_dir() and read_meta(path) is None and any(path.iterdir()):
            raise ValueError(f"{path} holds files that are no artifact: name another folder, or empty that one.")
        if temporary.is_dir() and path.exists():
            path.rename(replaced)  # a folder cannot be renamed over one that is not empty
        temporary.replace(path)
        _remove(replaced)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OSError(
                errno.ENOSPC, f"No space left on the disk while writing {path}; free some and run again."
            ) from error
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_meta(folder: str | os.PathLike) -> dict | None:
    """The folder's `meta.json`; None where there is none to read (then the artifact has to be made again)."""
    try:
        meta = json.loads((Path(folder) / "meta.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return meta if isinstance(meta, dict) else None


def write_meta(folder: str | os.PathLike, meta: dict) -> None:
    """Write the folder's `meta.json` in one step; the last thing to do for a complete artifact (`"complete": true`)."""
    with replacing(Path(folder) / "meta.json") as temporary:
        temporary.write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
