"""The status page: what was run, where, with which versions and parameters, read from the executed notebooks."""

import ast
import datetime

from book.tools.profiles import Profile
from experiments.markup import as_code, as_markdown


def status_page(profiles: list[Profile], executed: dict[str, dict]) -> str:
    """The page in Markdown; executed: notebooks (nbformat) by profile and name."""
    names = " and ".join(f"`{profile.name}`" for profile in profiles)
    several = len(profiles) > 1
    lines = [
        "# Status of this build",
        "",
        f"This copy of the book was executed with the profile{'s' if several else ''} {names}.",
        "The build wrote the tables below, from the record that each executed notebook carries.",
        "",
        "## Notebooks",
        "",
    ]
    for profile in profiles:
        lines += [f"### Profile `{profile.name}`", ""] if several else []
        lines += _runs(executed[profile.name], "" if profile is profiles[0] else f"-{profile.name}")
    lines += _left_out(profiles[0])
    notebooks = [(p.name, name, notebook) for p in profiles for name, notebook in executed[p.name].items()]
    lines += _machines({f"{p}/{name}" if several else name: notebook.metadata for p, name, notebook in notebooks})
    for profile in profiles:
        lines += _parameters(profile, executed[profile.name], several)
    return "\n".join(lines)


def _title(notebook) -> str:
    first = next(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return first.lstrip("# ").splitlines()[0]


def _runs(executed: dict, suffix: str) -> list[str]:
    """One row a notebook; `suffix` is what its page's name ends in, for another profile than the book's."""
    rows = ["| notebook | run time | peak memory | finished (UTC) |", "|---|---:|---:|---|"]
    total = 0.0
    for name, notebook in executed.items():
        metadata = notebook.metadata
        seconds, finished = metadata.papermill.duration, metadata.papermill.end_time
        total += seconds
        end = datetime.datetime.fromisoformat(finished).strftime("%d %b, %H:%M")
        memory = metadata.monosemantic.peak_memory_mb / 1024
        link = f"[{_title(notebook)}](../notebooks/{name}{suffix}.ipynb)"
        rows.append(f"| {link} | {_time(seconds)} | {memory:.1f} GB | {end} |")
    rows.append(f"| **all notebooks, one after the other** | **{_time(total)}** | | |")
    return [*rows, ""]


def _left_out(profile: Profile) -> list[str]:
    """The chapters that the book's profile does not run, with its reasons."""
    if not profile.left_out:
        return []
    rows = [f"| [`{name}`](../notebooks/{name}.ipynb) | {as_markdown(why)} |" for name, why in profile.left_out.items()]
    return ["## Not run", "", "| notebook | why |", "|---|---|", *rows, ""]


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


def _parameters(profile: Profile, executed: dict, several: bool) -> list[str]:
    """Every parameter of every notebook: this build's value and, where the build changed it, the notebook's default."""
    lines = [f"## Parameters of `{profile.name}`" if several else "## Parameters", ""]
    lines += ["Set in bold are the values that the profile changed from the notebook's own default.", ""]
    for name, notebook in executed.items():
        metadata = notebook.metadata
        used = metadata.papermill.parameters
        lines += [f"### `{name}`", "", "| parameter | value | default, if another | meaning |", "|---|---|---|---|"]
        for parameter, declared in profile.declared[name].items():
            default = literal(declared.default)
            value = used.get(parameter, default)
            shown = as_code(repr(value)) if value == default else f"**{as_code(repr(value))}**"
            meaning = as_markdown(declared.help)
            usual = "" if value == default else as_code(repr(default))
            lines.append(f"| `{parameter}` | {shown} | {usual} | {meaning} |")
        lines.append("")
    return lines


def literal(source: str):
    """The value of a Python literal, else its source."""
    try:
        return ast.literal_eval(source)
    except (ValueError, SyntaxError):
        return source
