"""Files of this repository that a notebook's results depend on: the modules it imports, and their data.

Imports are read from the syntax tree, inside functions too, because heavy libraries and some modules load when first
used. Nothing is imported or run, so the whole graph is read in a fraction of a second.
"""

import ast
import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGES = ("storage", "lib", "steering", "peers", "menagerie", "experiments", "widgets")
NAMES = "monosemantic_vision.names"  # the entry points that add public names to lib
REGISTRY = "lib.registry"  # importing it reaches all entry points of pyproject.toml
ASSETS = {
    "menagerie.shipped": ("assets/tiny/clip", "assets/tiny/eye"),
    "menagerie.topk_clip.topk_mlp": ("assets/tiny/topk_clip",),
    "steering.llava": ("assets/tiny/llava",),
    "experiments.claims": ("book/claims.yaml",),
}
"""Files and folders of data that a module reads and outside its folder."""


class Graph:
    """The import graph of the packages under `root`."""

    def __init__(self, root: Path = Path()):
        self.root = Path(root)
        # a file is read once
        self._imports, self._lazy_exports = cache(self._read_imports), cache(self._read_lazy_exports)
        self._file, self._files = cache(self._find_file), cache(self._read_files)
        self._nodes = cache(lambda file: list(ast.walk(ast.parse(file.read_text()))))

    def of_notebook(self, notebook: Path) -> list[str]:
        """Files, relative to the root and sorted, that can change the notebook's numbers."""
        modules: set[str] = set()
        waiting = set(self._names(ast.walk(ast.parse(_code(notebook))), package=""))
        while waiting:
            module = waiting.pop()
            if module not in modules:
                modules.add(module)
                waiting |= self._imports(module)
        files = {file for module in modules for file in self._files(module)}
        return sorted(str(file.relative_to(self.root)) for file in files)

    def _read_imports(self, module: str) -> set[str]:
        file = self._file(module)
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        return {*self._names(self._nodes(file), package), *(self._registered() if module == REGISTRY else ())}

    def _registered(self) -> Iterator[str]:
        """Modules of the entry points that lib loads by a spec."""
        for group, points in self._entry_points().items():
            for point in points.values() if group != NAMES else ():
                yield from self._with_parents(point.partition(":")[0])

    def _entry_points(self) -> dict[str, dict[str, str]]:
        file = self.root / "pyproject.toml"
        return tomllib.loads(file.read_text())["project"]["entry-points"] if file.is_file() else {}

    def _names(self, nodes: Iterable[ast.AST], package: str) -> Iterator[str]:
        """Modules of the project that nodes of a syntax tree import; `package` is what relative imports start from."""
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from self._with_parents(alias.name)
            elif isinstance(node, ast.ImportFrom):
                start = package.rsplit(".", node.level - 1)[0] if node.level else ""
                base = ".".join(filter(None, [start, node.module]))
                yield from self._with_parents(base)
                for alias in node.names:
                    yield from self._with_parents(self._home(base, alias.name))
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in PACKAGES:
                yield from self._with_parents(self._home(node.value.id, node.attr))

    def _home(self, base: str, name: str) -> str:
        """The module that `from base import name` takes the name from: a submodule, a lazy export's, or `base`."""
        if self._file(f"{base}.{name}"):
            return f"{base}.{name}"
        return self._lazy_exports(base).get(name, base)

    def _read_lazy_exports(self, module: str) -> dict[str, str]:
        """The tables `{name: "lib.home"}` with which a package's `__getattr__` loads public names."""
        file = self._file(module)
        if file is None:
            return {}
        added = self._entry_points().get(NAMES, {}) if module == "lib" else {}
        tables = [node for node in self._nodes(file) if isinstance(node, ast.Dict)]
        pairs = [pair for table in tables for pair in zip(table.keys, table.values, strict=True)]
        constants = [
            (k.value, v.value) for k, v in pairs if isinstance(k, ast.Constant) and isinstance(v, ast.Constant)
        ]
        homes = [*constants, *((name, point.partition(":")[0]) for name, point in added.items())]
        return {name: home for name, home in homes if isinstance(home, str) and self._file(home)}

    def _with_parents(self, module: str) -> Iterator[str]:
        parts = module.split(".")
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[:depth])
            if self._file(name):
                yield name

    def _find_file(self, module: str) -> Path | None:
        if not re.fullmatch(rf"({'|'.join(PACKAGES)})(\.\w+)*", module):
            return None
        stem = self.root.joinpath(*module.split("."))
        return next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()), None)

    def _read_files(self, module: str) -> list[Path]:
        """The module, data files in its folder that it names or that share its name, and its ASSETS."""
        file = self._file(module)
        strings = (node.value for node in self._nodes(file) if isinstance(node, ast.Constant))
        named = {value for value in strings if isinstance(value, str)}
        data = [beside for beside in file.parent.iterdir() if beside.suffix not in {".py", ".pyc"} and beside.is_file()]
        found = [file, *(beside for beside in data if beside.name in named or beside.stem == file.stem)]
        for asset in (self.root / name for name in ASSETS.get(module, ())):
            found += asset.rglob("*") if asset.is_dir() else [asset]
        return [item for item in found if item.is_file() and item.suffix != ".md"]


def _code(notebook: Path) -> str:
    """The Python code of a notebook, without IPython magics."""
    cells = json.loads(Path(notebook).read_text())["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).splitlines()]
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
