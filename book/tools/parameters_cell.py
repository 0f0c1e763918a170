"""The cell in which a notebook declares its parameters: `k: Count = 8  # active latents`."""

import ast
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Declared:
    """A parameter: its type and its default as they are written, and what its comment says."""

    kind: str
    default: str
    help: str


def declared_parameters(notebook: Path) -> dict[str, Declared]:
    """The parameters of a notebook in their order; empty where no cell is tagged `parameters`."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if not tagged:
        return {}
    source = "".join(tagged[0]["source"])
    lines = source.splitlines()
    return {
        node.target.id: Declared(
            kind=ast.unparse(node.annotation),
            default=ast.get_source_segment(source, node.value),
            help=lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode().strip().removeprefix("#").strip(),
        )
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None
    }
