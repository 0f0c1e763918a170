"""The status page: what was run, where, with which versions and parameters, read from the executed notebooks."""

import ast
import datetime

from book.tools.profiles import Profile


def status_page(profile: Profile, executed: dict) -> str:
    """Markdown of the page; `executed` maps a notebook's name to its executed copy (nbformat)."""
    runs = {name: notebook.metadata for name, notebook in executed.items()}
    return "\n".join(
        [
            "# Status of this build",
            "",
            f"This copy of the book was executed with the profile `{profile.name}`.",
            "The build wrote the tables below, from the record that each executed notebook carries.",
            "",
            *_runs(executed, runs),
            *_machines(runs),
            *_parameters(profile, runs),
        ]
    )


def _title(notebook) -> str:
    first = next(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return first.lstrip("# ").splitlines()[0]


def _runs(executed: dict, runs: dict) -> list[str]:
    rows = ["| notebook | run time | peak memory | finished (UTC) |", "|---|---:|---:|---|"]
    total = 0.0
    for name, metadata in runs.items():
        seconds, finished = metadata.papermill.duration, metadata.papermill.end_time
        total += seconds
        end = datetime.datetime.fromisoformat(finished).strftime("%d %b, %H:%M")
        memory = metadata.monosemantic.peak_memory_mb / 1024
        rows.append(
            f"| [{_title(executed[name])}](../notebooks/{name}.ipynb) | {_time(seconds)} | {memory:.1f} GB | {end} |"
        )
    rows.append(f"| **all notebooks, one after the other** | **{_time(total)}** | | |")
    return ["## Notebooks", "", *rows, ""]


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _machines(runs: dict) -> list[str]:
    """One table for each distinct machine or set of versions; most builds have one."""
    groups: list[tuple[dict, list[str]]] = []
    for name, metadata in runs.items():
        environment = metadata.monosemantic.environment
        known = next((names for other, names in groups if other == environment), None)
        if known is None:
            groups.append((environment, [name]))
        else:
            known.append(name)
    lines = ["## Machine and versions", ""]
    for environment, names in groups:
        if len(groups) > 1:
            lines += [f"Used for {', '.join(f'`{name}`' for name in names)}:", ""]
        facts = {
            "processor": f"{environment['processor']}, {environment['cores']} cores",
            "memory": f"{environment['memory_gb']} GB",
            "GPU": environment["gpu"] or "none",
            "system": environment["platform"],
            "Python": environment["python"],
        }
        rows = {**facts, **environment["packages"]}
        lines += ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items()), ""]
    return lines


def _parameters(profile: Profile, runs: dict) -> list[str]:
    """Every parameter of every notebook: this build's value and, where the build changed it, the notebook's default."""
    lines = ["## Parameters", ""]
    lines += ["Set in bold are the values that the profile changed from the notebook's own default.", ""]
    for name, metadata in runs.items():
        used = metadata.papermill.parameters
        lines += [f"### `{name}`", "", "| parameter | value | default, if another | meaning |", "|---|---|---|---|"]
        for parameter, declared in profile.declared[name].items():
            default = _literal(declared["default"])
            value = used.get(parameter, default)
            shown = f"`{default!r}`" if value == default else f"**`{value!r}`**"
            meaning = (declared["help"] or "").replace("|", "\\|")
            usual = "" if value == default else f"`{default!r}`"
            lines.append(f"| `{parameter}` | {shown} | {usual} | {meaning} |")
        lines.append("")
    return lines


def _literal(source: str):
    try:
        return ast.literal_eval(source)
    except (ValueError, SyntaxError):
        return source
