"""Diagram of the packages and their imports: `python -m book.tools.package_diagram` draws book/_static/packages.svg.

A band for each layer, a box for each package of lib, and an arc from a package of lib to each one of lib that it
imports, thicker for more imports.
"""

import ast
import html
from collections import Counter
from pathlib import Path

ABOVE, BELOW = ("widgets", "experiments", "menagerie", "steering", "peers"), ("storage",)  # layers above and below lib
DATA_FLOW = ("images", "encoders", "activations", "sae", "features", "hub", "metrics")  # packages of lib in order
WIDTH, BAND, BOX, GAP = 1080, 74, 118, 12


def packages(root: Path, floor: str) -> list[str]:
    """Packages in a layer, those of lib in the order of the data flow."""
    found = {path.stem for path in (root / floor).iterdir() if (path / "__init__.py").is_file()}
    return [name for name in DATA_FLOW if name in found] if floor == "lib" else sorted(found)


def imports_in_lib(root: Path) -> Counter[tuple[str, str]]:
    """How many import statements lead from one package of lib to another."""
    found: Counter[tuple[str, str]] = Counter()
    for name in DATA_FLOW:
        for file in (root / "lib" / name).rglob("*.py"):
            nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            homes = [node.module.split(".") for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
            found.update((name, home[1]) for home in homes if home[0] == "lib" and home[1:2] and home[1] in DATA_FLOW)
    return Counter({pair: n for pair, n in found.items() if pair[0] != pair[1]})


def purpose(root: Path, *parts: str) -> str:
    """The first sentence of a package's docstring, up to its first colon or full stop."""
    text = ast.get_docstring(ast.parse(root.joinpath(*parts, "__init__.py").read_text(encoding="utf-8")))
    return text.splitlines()[0].split(":")[0].rstrip(".")


def _text(x: float, y: float, said: str, kind: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">{html.escape(said)}</text>'


def _band(root: Path, floor: str, top: float, height: float) -> list[str]:
    return [
        f'<rect x="1" y="{top:.0f}" width="{WIDTH - 2}" height="{height:.0f}" rx="8" class="floor"/>',
        _text(16, top + 24, floor, "name", "start"),
        _text(16, top + 44, purpose(root, floor), "what", "start"),
    ]


def _arc(start: int, end: int, n: int, base: float) -> str:
    x0, x1 = (GAP + 8 + (BOX + GAP) * i + BOX / 2 for i in (start, end))
    height = 22 + 15 * abs(end - start)
    width = 0.8 + 0.35 * min(n, 8)
    curve = f"M{x0:.0f} {base} C{x0:.0f} {base - height} {x1:.0f} {base - height} {x1:.0f} {base}"
    return f'<path d="{curve}" stroke-width="{width:.1f}" class="arc" marker-end="url(#to)"/>'


def package_diagram(root: Path) -> str:
    """The diagram as SVG; root: of the repository."""
    parts, top = [], 1.0
    for floor in ABOVE:
        parts += _band(root, floor, top, BAND - GAP)
        top += BAND
    parts += _band(root, "lib", top, 270)
    base = top + 206
    places = {name: i for i, name in enumerate(packages(root, "lib"))}
    parts += [_arc(places[a], places[b], n, base) for (a, b), n in sorted(imports_in_lib(root).items())]
    for name, i in places.items():
        x = GAP + 8 + (BOX + GAP) * i
        parts.append(f'<rect x="{x}" y="{base:.0f}" width="{BOX}" height="44" rx="6" class="box"/>')
        parts.append(_text(x + BOX / 2, base + 27, name, "box-name"))
    top += 270 + GAP
    for floor in BELOW:
        parts += _band(root, floor, top, BAND - GAP)
        top += BAND
    style = (
        "text{font-family:system-ui,sans-serif;fill:#1f2937}.name{font-size:17px;font-weight:600}.what{font-size:13px}"
        ".box-name{font-size:14px;font-weight:600}.floor{fill:#eef4fa;stroke:#8aa4bd}.box{fill:#fff;stroke:#1f5f8b}"
        ".arc{fill:none;stroke:#1f5f8b;stroke-opacity:.55}"
    )
    marker = (
        '<marker id="to" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto" '
        'markerUnits="userSpaceOnUse"><path d="M0 0L8 4L0 8z" fill="#1f5f8b"/></marker>'
    )
    size = f'width="{WIDTH}" height="{top:.0f}" viewBox="0 0 {WIDTH} {top:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>The packages and what they import</title>'
    return "\n".join([f"{head}<style>{style}</style><defs>{marker}</defs>", *parts, "</svg>", ""])


if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[2]
    (ROOT / "book" / "_static" / "packages.svg").write_text(package_diagram(ROOT), encoding="utf-8")
