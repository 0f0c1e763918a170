"""Reading foreign files: errors are one sentence that names the file and quotes little of it.

Headers are read before weights, so that a damaged or absurd file costs neither minutes nor memory. Only ordinary files
are opened, because reading a named pipe would block.
"""

import json
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from torch import Tensor

MOST_JSON_BYTES = 1 << 26  # of a configuration or an index; a tokenizer of 250,000 words takes 35 MB
_POINTERS = {
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself: run `git lfs pull`, or download it",
    b"/annex/objects/": "a pointer of git-annex and not the file itself: run `git annex get`, or download it",
    b"<!doctype html": "a web page and not the file itself: download it again, from the link to the raw file",
    b"<html": "a web page and not the file itself: download it again, from the link to the raw file",
}


class TensorShape(NamedTuple):
    """Entry of a tensor in a safetensors header: dtype as written there ("F32"), shape."""

    dtype: str
    shape: tuple[int, ...]


def quoted(value: object, most: int = 80) -> str:
    """`value` as an error may quote it: on one line, control characters escaped, at most `most` characters."""
    text = repr(value[: most + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= most else text[: most - 4] + " ..."


def one_sentence(error: BaseException, most: int = 200) -> str:
    """The message of another library's exception, on one line of at most `most` characters."""
    text = " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in str(error)[: 8 * most]).split())
    text = text or type(error).__name__
    return text if len(text) <= most else text[: most - 4] + " ..."


def check_archive(path: Path, opened: BinaryIO | None = None) -> None:
    """Raises ValueError where a file of torch.save is damaged: torch writes checksums and never checks them.

    opened: the file's content, where it is in memory already. Files that are no zip archives are not checked.
    """
    if zipfile.is_zipfile(opened or path):
        with zipfile.ZipFile(opened or path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"{path} is damaged: the checksum of {quoted(damaged)} in it is another one.")


@contextmanager
def naming(path: str | Path, what: str = "read") -> Iterator[None]:
    """Context that turns every error about a file into one sentence that names it.

    OSErrors keep their class; ValueErrors that name the file already are unchanged; errors of any other class become
    ValueErrors.
    """
    try:
        yield
    except OSError as error:
        if str(path) in str(error):
            raise
        sentence = f"{path} cannot be {what}: {error.strerror or one_sentence(error)}"
        raise OSError(error.errno, sentence) from error  # of the class that belongs to its number
    except MemoryError as error:
        raise ValueError(f"{path} cannot be {what}: it asks for more memory than there is") from error
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} cannot be {what}: {one_sentence(error)}") from error


def ordinary_file(path: str | Path) -> Path:
    """Return `path` if it is an ordinary file that is not empty.

    Raises FileNotFoundError for a missing file, ValueError for a folder, a pipe, a socket, a device, an empty file, and
    for a placeholder of a file: a pointer of Git LFS or git-annex, a saved web page.
    """
    path = Path(path).expanduser()
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:  # too long a name, a link to itself, a zero byte
        raise ValueError(f"{quoted(str(path), 200)} is no path of a file: {one_sentence(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        raise ValueError(f"{path} is {kinds.get(stat.S_IFMT(status.st_mode), 'a device')}, not an ordinary file")
    if status.st_size == 0:
        raise ValueError(f"{path} is empty: make or download it again")
    with path.open("rb") as file:
        begin = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for sign, meaning in _POINTERS.items():
        if begin.startswith(sign):
            raise ValueError(f"{path} is {meaning}")
    return path


def inside(folder: str | Path, name: object) -> Path:
    """The path of the file that an index or a configuration in a folder names.

    Raises ValueError where the name is not a string, or leads out of the folder ("../x", "/x"). A link in the folder
    may lead out of it, as in the hub's cache.
    """
    parts = Path(name).parts if isinstance(name, str) else ()
    if not parts or ".." in parts or "\0" in name or "\\" in name or Path(name).is_absolute():
        raise ValueError(f"{folder} names {quoted(name)} as one of its files, which lies outside the folder")
    return Path(folder, name)


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file (settings, an index). Raises ValueError and OSError that name the file."""
    path = ordinary_file(path)
    size = path.stat().st_size
    if size > MOST_JSON_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, too many for settings in JSON: is it another file?")
    with naming(path):
        return json_object(path.read_bytes(), path)


def json_object(text: bytes, path: str | Path) -> dict[str, Any]:
    """Parse a JSON object from the text of a file. Raises ValueError that names the file."""
    try:
        values = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{path} holds no settings: its JSON is nested too deeply") from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ValueError(f"{path} holds no valid JSON: {one_sentence(error)}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a JSON {type(values).__name__} where settings, a JSON object, are expected")
    return values


def safetensors_header(path: str | Path) -> tuple[dict[str, TensorShape], dict[str, str]]:
    """Names, types and shapes of the tensors of a safetensors file, and its metadata; no weight is read.

    Checks that the file is as long as its header says. Raises ValueError and OSError that name the file.
    """
    from safetensors import safe_open

    path = ordinary_file(path)
    with naming(path, "read as safetensors"), safe_open(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
        shapes = {name: TensorShape(s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
        return shapes, dict(file.metadata() or {})


def read_safetensors(path: str | Path, expected: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU, after its header was checked.

    expected: shapes that tensors must have, {name: shape}; others may be there too. Raises ValueError naming the file
    where one is missing or of another shape, before any weight is read.
    """
    from safetensors.torch import load_file

    path = ordinary_file(path)
    shapes, _ = safetensors_header(path)
    for name, shape in (expected or {}).items():
        if name not in shapes:
            raise ValueError(f"{path} lacks the tensor {name}")
        if shapes[name].shape != tuple(shape):
            raise ValueError(
                f"{path} has {name} of shape {shapes[name].shape}, and its settings ask for {tuple(shape)}"
            )
    with naming(path, "read as safetensors"):
        return load_file(path)


def check_shards(index: str | Path) -> list[Path]:
    """The files that the `weight_map` of a `model.safetensors.index.json` names, each with a sound header.

    Raises ValueError for names that leave the folder, and for damaged files; FileNotFoundError for missing ones.
    """
    index = Path(index)
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{index} has no weight_map that names the files of weights")
    for name in names.values():
        if not isinstance(name, str):
            raise ValueError(f"{index} names {quoted(name)} as a file of weights")
    shards = [inside(index.parent, name) for name in dict.fromkeys(names.values())]
    for shard in shards:
        safetensors_header(shard)
    return shards


def refuse_code(settings: object, path: str | Path) -> None:
    """Raises ValueError where settings, at any depth, ask that Python code beside them is run (`trust_remote_code`)."""
    if isinstance(settings, dict):
        if any(settings.get(key) for key in settings if str(key).endswith("trust_remote_code")):
            raise ValueError(
                f"{path} asks to run Python code of its own (trust_remote_code), which this library never does: remove "
                "the entry if the model needs no such code, or take one that needs none"
            )
        settings = list(settings.values())
    for value in settings if isinstance(settings, list) else ():
        if isinstance(value, dict | list):
            refuse_code(value, path)
