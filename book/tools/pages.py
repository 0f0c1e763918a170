"""The chapters of a rendered book: executed notebooks prepared for static pages, and chapters that were not run."""

import re
from collections.abc import Iterable

import nbformat
from nbformat.v4 import new_markdown_cell

from book.tools.page_scripts import scripts
from book.tools.sanitise import harmless_html, harmless_markdown
from experiments.markup import OWN, as_code, as_html, as_markdown

PLOTLY = "application/vnd.plotly.v1+json"
PLOTLY_SCRIPT = '<script src="../_static/vendor/plotly.min.js"></script>\n'
FIGURE_REFERENCE = re.compile(r"\{numref\}`(?:[^`<]*<)?(fig-[\w-]+)>?`")
LABELS = re.compile(r"^\(([\w-]+)\)=|^:label: *([\w-]+)|\$\$ *\(([\w-]+)\)", flags=re.MULTILINE)
DRAWN = ("text/html", "image/", "application/vnd.jupyter.widget-view+json")


def prepare_notebook(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Prepare outputs for a static page: plotly's script once, if used; alt texts; no progress bars; HTML of plots and
    of this project's widgets as it is, other HTML sanitised."""
    script = PLOTLY_SCRIPT
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        cell.outputs = [output for output in cell.outputs if not is_progress_bar(output)]
        for output in cell.outputs:
            if is_plot(output):
                opening = f'<div class="book-plot" role="img" aria-label="{as_html(alt)}">'
                output.data["text/html"] = f"{script}{opening}{output.data['text/html']}</div>"
                script = ""
            elif not is_own(output):
                make_harmless(output)
    return notebook


def is_plot(output: nbformat.NotebookNode) -> bool:
    """Whether an output is a plotly figure, by its MIME type, which text cannot forge."""
    data = output.get("data", {})
    return PLOTLY in data and "text/html" in data


def is_own(output: nbformat.NotebookNode) -> bool:
    """Whether this project wrote the output's HTML (experiments.markup.own_html)."""
    return OWN.items() <= output.get("metadata", {}).get("text/html", output.get("metadata", {})).items()


def make_harmless(output: nbformat.NotebookNode) -> None:
    """Remove everything from an output that could run."""
    data = output.get("data", {})
    for kind in ("application/javascript", "image/svg+xml"):
        data.pop(kind, None)
    for kind, harmless in (("text/html", harmless_html), ("text/markdown", harmless_markdown)):
        if kind in data:
            data[kind] = harmless("".join(data[kind]))


def named_scripts(notebook: nbformat.NotebookNode) -> list[str]:
    """The trusted scripts of a page, those of plots and widgets, for its policy."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = ["".join(output.data["text/html"]) for output in outputs if is_plot(output) or _is_own_html(output)]
    return [script for text in shown for script in scripts(text)]


def _is_own_html(output: nbformat.NotebookNode) -> bool:
    return "text/html" in output.get("data", {}) and is_own(output)


def is_progress_bar(output: nbformat.NotebookNode) -> bool:
    """Whether an output is nothing but tqdm's progress bars."""
    if output.output_type != "stream" or output.name != "stderr":
        return False
    lines = [line for line in re.split(r"[\r\n]+", output.text) if line.strip("\x1b[A ")]
    return all(re.search(r"\d+%\||\d+it \[|\[\d\d:\d\d", line) for line in lines)


def page_of_another_profile(notebook: nbformat.NotebookNode, name: str, title: str) -> nbformat.NotebookNode:
    """The same chapter run with another profile: with its own title and labels."""
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    labels = {label for cell in prose for found in LABELS.findall(cell.source) for label in found if label}
    labels |= set(_figures(notebook))
    for cell in prose:
        for label in labels:
            cell.source = re.sub(rf"(?<![\w-]){re.escape(label)}(?![\w-])", f"{label}-{name}", cell.source)
    for cell in notebook.cells:
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if "name" in figure:
            figure["name"] = f"{figure['name']}-{name}"
    heading, _, rest = prose[0].source.partition("\n")
    prose[0].source = f"{heading}: {as_markdown(title)}\n{rest}"
    return notebook


def page_not_run(source: nbformat.NotebookNode, profile: str, reason: str | None) -> nbformat.NotebookNode:
    """A chapter that the profile leaves out: its text and code, with a note that nothing was run."""
    why = f"leaves this chapter out: {as_markdown(reason)}" if reason else "does not run this chapter"
    note = (
        f":::{{admonition}} Not run in this build\n:class: note\nThe profile {as_code(profile)} {why}.\n"
        "What follows are the chapter's text and code, without results.\n:::"
    )
    first = next(i for i, cell in enumerate(source.cells) if cell.cell_type == "markdown")
    heading, _, rest = source.cells[first].source.partition("\n")
    source.cells[first : first + 1] = [new_markdown_cell(text) for text in (heading, note, rest.strip()) if text]
    return source


def figures_drawn(notebook: nbformat.NotebookNode) -> set[str]:
    """Names of the figures that the notebook shows."""
    return {name for name, cell in _figures(notebook).items() if any(map(_is_drawn, cell.outputs))}


def _figures(notebook: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    named = [(cell.metadata.get("mystnb", {}).get("figure", {}).get("name"), cell) for cell in notebook.cells]
    return {name: cell for name, cell in named if name and cell.cell_type == "code"}


def _is_drawn(output: nbformat.NotebookNode) -> bool:
    return any(kind.startswith(DRAWN) for kind in output.get("data", {}))


def without_dangling(text: str, drawn: Iterable[str]) -> str:
    """Prose with references to figures that this build did not draw replaced by a note."""
    return FIGURE_REFERENCE.sub(lambda m: m[0] if m[1] in drawn else "the figure (not drawn in this build)", text)
