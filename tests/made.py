"""What was made, to compare two runs by."""

import json
from pathlib import Path


def numbers(root: Path) -> dict[str, bytes]:
    """What the artifacts below a folder say, byte for byte; without the times of the run and TensorBoard's events."""
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = str(path.relative_to(root))
        if path.suffix == ".safetensors" or path.name == "config.json" or path.parent.name == "results":
            found[name] = path.read_bytes()
        elif path.name == "meta.json":
            meta = json.loads(path.read_text())
            left_out = ("seconds", "log", "digest")
            found[name] = json.dumps({key: value for key, value in meta.items() if key not in left_out}).encode()
        elif path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = json.dumps([{**row, "seconds": 0} for row in rows]).encode()
        elif "tensorboard" not in path.parts and not path.name.endswith(".lock"):
            found[name] = b"left over"
    return found
