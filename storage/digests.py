"""Digests: a file is used only while its bytes are those that were written.

A safetensors file of this project holds the SHA-256 of all its bytes in its header, so that a shard or a checkpoint
can be checked before any meta.json names it. The finished artifact's meta.json lists the digest of each file again
("digests"), so that exchanged files are noticed too. Files without digests, of earlier versions, are not checked.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from storage.files import read_safetensors, safetensors_header
from storage.writing import Damaged

_BLANK = b"0" * 64  # placeholder of the digest while it is computed
_CARRIED = re.compile(rb'"digest":"([0-9a-f]{64})"')
_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_known: dict[tuple[int, int, int, int], str] = {}  # digests computed by this process, by what identifies a file's state


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> str:
    """Write a safetensors file that carries its digest, and return the digest; equal tensors give equal bytes.

    Unlike safetensors' own writer it leaves no temporary file when killed, gives the file the umask's mode, and
    raises OSError for a full disk.
    """
    parts = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    in_order = sorted(parts, key=lambda name: (-parts[name].element_size(), name))  # so that all are aligned
    header: dict = {"__metadata__": {**(metadata or {}), "digest": _BLANK.decode()}}
    end = 0
    for name in in_order:
        start, end = end, end + parts[name].nbytes
        shape = list(parts[name].shape)
        header[name] = {"dtype": _TYPES[parts[name].dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    contents = [parts[name].reshape(-1).view(torch.uint8).numpy() for name in in_order]
    digest = hashlib.sha256(len(text).to_bytes(8, "little") + text)
    for content in contents:
        digest.update(content)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(_with_digest(text, digest.hexdigest().encode()))
        for content in contents:
            file.write(content)
    _known[_state(path)] = digest.hexdigest()
    return digest.hexdigest()


def _with_digest(header: bytes, digest: bytes) -> bytes:
    start, end = _CARRIED.search(header).span(1)
    return header[:start] + digest + header[end:]


def load_tensors(path: Path, digest: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and its metadata; its bytes are checked first.

    Raises Damaged as `check_file` does, and ValueError or OSError naming the file where it cannot be read.
    """
    check_file(path, digest)
    _, metadata = safetensors_header(path)
    return read_safetensors(path), metadata


def check_files(folder: Path, meta: dict) -> None:
    """Raises Damaged for the first file whose digest is not the one in the folder's meta.json."""
    digests = meta.get("digests", {})
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing releases the GIL
        list(pool.map(check_file, [folder / name for name in digests], digests.values()))


def check_file(path: Path, digest: str | None = None) -> None:
    """Raises Damaged where the file's digest is not `digest`, or, for None, not the one that the file carries.

    A file is read once per process, and again when it has changed.
    """
    try:
        digest = digest or embedded_digest(path)
        sound = digest is None or digest_of(path) == digest
    except FileNotFoundError:
        raise Damaged(f"{path} is missing or damaged: no such file") from None
    if not sound:
        raise Damaged(f"{path} is missing or damaged: its bytes are not those that were written")


def check_digest_file(path: Path) -> None:
    """Raises Damaged where a file's digest is not the one in the digest file beside it; passes without one."""
    beside = digest_file(path)
    if beside.is_file():
        check_file(path, beside.read_text(encoding="utf-8", errors="replace").partition(" ")[0] or "none")


def digest_file(path: Path) -> Path:
    """The file that holds the digest of a file which cannot carry it, in the format of `sha256sum --check`."""
    return path.with_name(f"{path.name}.sha256")


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex; in a file that carries its digest, the digest is replaced by zeros.

    Where the two differ, both are returned in one string, which equals no digest.
    """
    state = _state(path)
    if state not in _known:
        with path.open("rb") as file:
            header = _header(file)
            carried = _CARRIED.search(header)
            digest = hashlib.sha256(_with_digest(header, _BLANK) if carried else header)
            found = hashlib.file_digest(file, lambda: digest).hexdigest()
        said = carried.group(1).decode() if carried else found
        _known[state] = found if said == found else f"{found}, not {said}"
    return _known[state]


def embedded_digest(path: Path) -> str | None:
    """The digest that a file carries in its header, unchecked; None for files without."""
    with path.open("rb") as file:
        found = _CARRIED.search(_header(file))
    return found.group(1).decode() if found else None


def _header(file) -> bytes:
    """The first bytes of a file: for a safetensors file, everything before its tensors."""
    first = file.read(8)
    length = int.from_bytes(first, "little")
    return first + (file.read(length) if length < 1 << 27 else b"")


def _state(path: Path) -> tuple[int, int, int, int]:
    """Device, inode, size and time of the last change: they stay when the file is renamed."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
