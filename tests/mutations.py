"""Seeded damage to files: what power cuts, bad disks, half downloads and hands do to them."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"
ERROR_PAGE = b"<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>"
ODD_VALUES = (None, True, -1, 0, 3, 2.5, 1_500_000, 10**30, "", "x", "3", [], [1, "a"], {}, {"a": {}}, float("nan"))


def flip_bit(content: bytes, random: Random) -> bytes:
    where = random.randrange(len(content))
    return content[:where] + bytes([content[where] ^ (1 << random.randrange(8))]) + content[where + 1 :]


def truncate(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def empty(content: bytes, random: Random) -> bytes:
    return b""


def zero_all(content: bytes, random: Random) -> bytes:
    return bytes(len(content))


def zero_a_block(content: bytes, random: Random) -> bytes:
    begin = random.randrange(len(content))
    end = min(len(content), begin + random.randint(1, 4096))
    return content[:begin] + bytes(end - begin) + content[end:]


def garbage(content: bytes, random: Random) -> bytes:
    return random.randbytes(len(content))


def insert(content: bytes, random: Random) -> bytes:
    where = random.randrange(len(content))
    return content[:where] + random.randbytes(random.randint(1, 64)) + content[where:]


def cut_out(content: bytes, random: Random) -> bytes:
    where = random.randrange(len(content))
    return content[:where] + content[where + random.randint(1, 256) :]


def double(content: bytes, random: Random) -> bytes:
    return content + content


def pointer(content: bytes, random: Random) -> bytes:
    return LFS_POINTER


def error_page(content: bytes, random: Random) -> bytes:
    return ERROR_PAGE


def odd_value(content: bytes, random: Random) -> bytes:
    """A JSON file in which one value is something else, or gone; other files get a flipped bit."""
    try:
        document = json.loads(content)
    except ValueError:
        return flip_bit(content, random)
    places = list(_places(document))
    if not places:
        return content + b","
    holder, key = random.choice(places)
    if random.random() < 0.25:
        del holder[key]
    else:
        holder[key] = random.choice(ODD_VALUES)
    return json.dumps(document).encode()


def _places(node: Any) -> Any:
    """Every (container, key) of a JSON document."""
    keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in list(keys):
        yield node, key
        yield from _places(node[key])


MUTATIONS: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(flip_bit, flip_bit, flip_bit, truncate, empty, zero_all, zero_a_block, garbage, insert, cut_out, double),
    *(pointer, error_page, odd_value, odd_value, odd_value),
)


def damage(folder: Path, seed: int, suffixes: tuple[str, ...] = ()) -> str:
    """Damage one file of the folder, or exchange or remove it; says what was done."""
    random = Random(seed)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size and not p.name.startswith("."))
    path = random.choice([p for p in files if not suffixes or p.suffix in suffixes])
    alike = [p for p in files if p.suffix == path.suffix and p != path and p.read_bytes() != path.read_bytes()]
    if alike and random.random() < 0.1:
        other = random.choice(alike)
        first, second = path.read_bytes(), other.read_bytes()
        path.write_bytes(second)
        other.write_bytes(first)
        return f"{path.name} exchanged with {other.name}"
    if random.random() < 0.05:
        path.unlink()
        return f"{path.name} removed"
    mutate = random.choice(MUTATIONS)
    path.write_bytes(mutate(path.read_bytes(), random))
    return f"{path.relative_to(folder)}: {mutate.__name__}"
