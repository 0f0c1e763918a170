"""Profiles (`profiles/<name>.yaml`): the notebooks of a build, their parameters and resources.

title: CLIP ViT-B/32 on photographs     what the page headings of a profile built along with another one say
extends: paper                          begin with another profile's content; what follows is laid over it, key by key
also: [paper-siglip]                    profiles built into the same book, each with artifacts of its own
leave_out: {01_menagerie: "why"}        chapters that are not run; the book shows their text, and the reason
shared: {k: 20}                         parameters for every notebook that declares them
notebooks:                              in the book's order; each with the keys of `Entry`
  03_train_saes: {parameters: {steps: 100000}, after: [02_activations], gpus: 1}
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import yaml

from book.tools.parameters_cell import Declared, declared_parameters
from experiments.parameters import kind_of, read

NAME = re.compile(r"\w[\w.-]{,99}")  # of a profile or a notebook, used in paths
PROFILE_KEYS = {
    "title": "a text", "extends": "a text", "also": "a list of texts", "data": "a text",
    "leave_out": "a mapping of texts", "shared": "a mapping", "notebooks": "a mapping",
}  # fmt: skip
ENTRY_KEYS = {
    "parameters": "a mapping", "after": "a list of texts", "reads": "a list of texts", "threads": "a number from 1",
    "memory_mb": "a number from 1", "gpus": "a number from 0", "runtime": "a number from 1",
}  # fmt: skip
"""By key: what its value is."""

_SHAPES: dict[str, Callable[[object], bool]] = {
    "a text": lambda x: isinstance(x, str),
    "a list of texts": lambda x: isinstance(x, list) and all(isinstance(part, str) for part in x),
    "a mapping": lambda x: isinstance(x, dict),
    "a mapping of texts": lambda x: isinstance(x, dict) and all(isinstance(part, str) for part in x.values()),
    "a number from 0": lambda x: isinstance(x, int) and not isinstance(x, bool) and x >= 0,
    "a number from 1": lambda x: isinstance(x, int) and not isinstance(x, bool) and x >= 1,
}
_LATER = ("Kind", "Site", "list[Kind]", "list[Site]")  # the notebook checks them: torch is imported to know them


@dataclass(frozen=True)
class Entry:
    """One notebook of a profile.

    `after` orders notebooks that share artifacts (the first one makes them); a notebook is also run after those in
    `reads`, and again whenever one of them was, because it reads their results. `threads`, `memory_mb` and `gpus` are
    what the scheduler sets aside while the notebook runs; `runtime` is the minutes that a cluster allows it.
    """

    parameters: dict = field(default_factory=dict)
    after: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    threads: int = 1
    memory_mb: int = 2500
    gpus: int = 0
    runtime: int = 240


class Profile:
    """`profiles/<name>.yaml` read and checked against the notebooks; raises ValueError with one sentence otherwise.

    `entries`: the notebooks it runs, in order; `left_out`: those it does not, with the reason; `also`: names of the
    profiles that are built into the same book; `data`: the folder with the data sets, which notebooks get as MV_DATA.
    """

    def __init__(self, name: str, root: Path = Path()):
        self.name, self.root = name, Path(root).resolve()
        content = self._content(name, ())
        self.title: str = content.get("title") or name
        self.also: list[str] = content.get("also") or []
        self.data: Path | None = self.root / Path(content["data"]).expanduser() if content.get("data") else None
        self.shared: dict = content.get("shared") or {}
        self.left_out: dict[str, str] = content.get("leave_out") or {}
        self.entries = {name: self._entry(entry or {}) for name, entry in (content["notebooks"] or {}).items()}

    def _content(self, name: str, extended_by: tuple[str, ...]) -> dict:
        """The file's content, laid over that of the profile it extends."""
        content = self._read(name)
        _check_shape(f"profiles/{name}.yaml", content, PROFILE_KEYS)
        for notebook, entry in (content.get("notebooks") or {}).items():
            _check_shape(f"profiles/{name}.yaml, {notebook}", {} if entry is None else entry, ENTRY_KEYS)
        base = content.get("extends")
        if base is None:
            return {"notebooks": {}, **content}
        if base in (*extended_by, name):
            raise ValueError(f"profiles/{name}.yaml extends {base}, which extends {name}: take one `extends` out.")
        return _laid_over(self._content(base, (*extended_by, name)), content)

    def _read(self, name: str) -> dict:
        path = self.root / "profiles" / f"{name}.yaml"
        if not NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is not a valid profile name: use up to 100 letters, digits, dots, - and _ only."
            )
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
            raise ValueError(f"There is no profile {name!r}: choose one of {known}, or write profiles/{name}.yaml.")
        try:
            return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"profiles/{name}.yaml is not valid YAML: {' '.join(str(error).split())[:200]}") from None

    def _entry(self, entry: dict) -> Entry:
        return Entry(**{key: value for key, value in entry.items() if value is not None})

    def notebook(self, name: str) -> Path:
        """The notebook's source, without outputs."""
        return self.root / "notebooks" / f"{name}.ipynb"

    def executed(self, name: str) -> Path:
        """Where the notebook's executed copy is kept."""
        return self.root / "build" / self.name / "notebooks" / f"{name}.ipynb"

    @cached_property
    def declared(self) -> dict[str, dict[str, Declared]]:
        """Parameters that the `parameters` cell of each notebook declares, by notebook."""
        odd = [name for name in (*self.entries, *self.left_out) if not NAME.fullmatch(str(name))]
        if odd:
            raise ValueError(f"profiles/{self.name}.yaml: {odd[0]!r} is not a valid notebook name.")
        missing = [name for name in (*self.entries, *self.left_out) if not self.notebook(name).is_file()]
        if missing:
            raise ValueError(
                f"profiles/{self.name}.yaml names {missing[0]}, but there is no notebooks/{missing[0]}.ipynb."
            )
        return {name: declared_parameters(self.notebook(name)) for name in self.entries}

    def parameters(self, name: str) -> dict:
        """Parameters for papermill: shared ones that the notebook declares, its own, and the folder of artifacts."""
        shared = {key: value for key, value in self.shared.items() if key in self.declared[name]}
        return {**shared, **self.entries[name].parameters, "profile_dir": f"../build/{self.name}"}

    def check(self) -> None:
        """Raise ValueError for unknown names and invalid values; papermill would warn and run the defaults."""
        if not self.entries:
            raise ValueError(f"profiles/{self.name}.yaml runs no notebook: name some under `notebooks`.")
        for name, entry in self.entries.items():
            self._refuse_unknown(name, [*entry.parameters, "profile_dir"], self.declared[name], "parameter")
            self._refuse_unknown(name, entry.after, self.entries, "notebook in `after`")
            self._refuse_unknown(name, entry.reads, self.entries, "notebook in `reads`")
            self._refuse_objects(name, entry.parameters)
            self._refuse_unfit(name)
        self._refuse_objects("shared", self.shared)
        self._refuse_circles()
        everywhere = {parameter for declared in self.declared.values() for parameter in declared}
        self._refuse_unknown("shared", self.shared, everywhere, "parameter")

    def _refuse_objects(self, where: str, parameters: dict) -> None:
        """Refuse YAML values that are not plain Python literals: dates, bytes, sets."""
        for name, value in parameters.items():
            if not _is_plain(value):
                raise ValueError(
                    f"profiles/{self.name}.yaml, {where}: {name} is neither text, number, list nor mapping; "
                    "write it in quotes."
                )

    def _refuse_unfit(self, notebook: str) -> None:
        """Refuse values that the notebook would refuse when it runs."""
        for name, value in self.parameters(notebook).items():
            declared = self.declared[notebook][name]
            if declared.kind not in _LATER:
                try:
                    read(name, kind_of(declared.kind), value)
                except ValueError as error:
                    raise ValueError(f"profiles/{self.name}.yaml, {notebook}: {error}") from None

    def _refuse_circles(self) -> None:
        """Refuse circular dependencies between notebooks."""
        waits = {name: [*entry.after, *entry.reads] for name, entry in self.entries.items()}
        try:
            TopologicalSorter(waits).prepare()
        except CycleError as error:
            circle = " waits for ".join(reversed(error.args[1]))
            raise ValueError(f"profiles/{self.name}.yaml: {circle}; take one `after` or `reads` out.") from None

    def _refuse_unknown(self, where: str, names: Iterable[str], known: Iterable[str], what: str) -> None:
        for name in names:
            if name not in known:
                close = get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known)) or 'none'}."
                raise ValueError(f"profiles/{self.name}.yaml, {where}: unknown {what} {name!r}; {hint}")


def _check_shape(where: str, content: object, keys: dict[str, str]) -> None:
    """Raise ValueError, one sentence, for unknown keys and for values of the wrong kind."""
    if not isinstance(content, dict):
        raise ValueError(
            f"{where} holds {str(content)[:80]!r} where keys are expected: write {', '.join(sorted(keys))}."
        )
    for name, value in content.items():
        if name not in keys:
            raise ValueError(f"{where} has the unknown key {name!r}; its keys are {', '.join(sorted(keys))}.")
        if value is not None and not _SHAPES[keys[name]](value):
            raise ValueError(f"{where}: {name} must be {keys[name]}, not {repr(value)[:80]}.")


def _is_plain(value) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and _is_plain(part) for key, part in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bool | int | float)


def _laid_over(base: dict, content: dict) -> dict:
    """A profile over the one it extends: `shared`, a notebook's keys and parameters are merged, the rest is its own."""
    notebooks = {name: dict(entry or {}) for name, entry in (base.get("notebooks") or {}).items()}
    own = content.get("notebooks") or {}
    for name, entry in own.items():
        inherited = notebooks.get(name, {})
        parameters = {**(inherited.get("parameters") or {}), **((entry or {}).get("parameters") or {})}
        notebooks[name] = {**inherited, **(entry or {}), "parameters": parameters}
    inherited_reasons = {name: why for name, why in (base.get("leave_out") or {}).items() if name not in own}
    left_out = {**inherited_reasons, **(content.get("leave_out") or {})}
    kept = {name: entry for name, entry in notebooks.items() if name not in left_out}
    for entry in kept.values():  # a notebook must not wait for one that is not run
        for key in ("after", "reads"):
            entry[key] = [name for name in entry.get(key) or [] if name not in left_out]
    return {
        "title": content.get("title"),
        "also": content.get("also"),
        "data": content.get("data") or base.get("data"),
        "shared": {**(base.get("shared") or {}), **(content.get("shared") or {})},
        "leave_out": left_out,
        "notebooks": kept,
    }


def profiles_of_book(name: str, root: Path = Path()) -> list[Profile]:
    """The profile and those in its `also`, all checked: what one build executes and one book shows."""
    main = Profile(name, root)
    others = [other for other in dict.fromkeys(main.also) if other != name]
    profiles = [main, *(Profile(other, root) for other in others)]
    for profile in profiles:
        profile.check()
    return profiles
