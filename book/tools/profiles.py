"""A profile: which notebooks a build runs, and with which parameters (`profiles/<name>.yaml`)."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import papermill
import yaml

ENTRY_KEYS = {"parameters", "after", "threads", "memory_mb"}


@dataclass(frozen=True)
class Entry:
    """One notebook of a profile.

    `after` orders notebooks that share artifacts (the first one makes them), `threads` and `memory_mb` are what the
    scheduler sets aside while the notebook runs.
    """

    parameters: dict = field(default_factory=dict)
    after: list[str] = field(default_factory=list)
    threads: int = 1
    memory_mb: int = 2500


class Profile:
    """`profiles/<name>.yaml` read and checked against the notebooks; raises ValueError with one sentence otherwise."""

    def __init__(self, name: str, root: Path = Path()):
        self.name, self.root = name, Path(root).resolve()
        path = self.root / "profiles" / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
            raise ValueError(f"There is no profile {name!r}: choose one of {known}, or write profiles/{name}.yaml.")
        content = yaml.safe_load(path.read_text()) or {}
        self.shared: dict = content.get("shared") or {}
        self.entries = {name: self._entry(name, entry or {}) for name, entry in content["notebooks"].items()}

    def _entry(self, notebook: str, entry: dict) -> Entry:
        unknown = set(entry) - ENTRY_KEYS
        if unknown:
            raise ValueError(
                f"profiles/{self.name}.yaml: {notebook} has the unknown key {sorted(unknown)[0]!r}; "
                f"a notebook's keys are {', '.join(sorted(ENTRY_KEYS))}."
            )
        return Entry(**{key: value for key, value in entry.items() if value is not None})

    def notebook(self, name: str) -> Path:
        """The notebook's source, without outputs."""
        return self.root / "notebooks" / f"{name}.ipynb"

    @cached_property
    def declared(self) -> dict[str, dict[str, dict]]:
        """Per notebook the parameters that its `parameters` cell declares, as papermill reads them."""
        missing = [name for name in self.entries if not self.notebook(name).is_file()]
        if missing:
            raise ValueError(
                f"profiles/{self.name}.yaml names {missing[0]}, but there is no notebooks/{missing[0]}.ipynb."
            )
        return {name: papermill.inspect_notebook(str(self.notebook(name))) for name in self.entries}

    def parameters(self, name: str) -> dict:
        """What papermill injects: the shared values that the notebook declares, its own, and where artifacts live."""
        shared = {key: value for key, value in self.shared.items() if key in self.declared[name]}
        return {**shared, **self.entries[name].parameters, "profile_dir": f"../build/{self.name}"}

    def check(self) -> None:
        """Refuse a name that a notebook does not declare: papermill itself would warn and run the defaults."""
        for name, entry in self.entries.items():
            self._refuse_unknown(name, [*entry.parameters, "profile_dir"], self.declared[name], "parameter")
            self._refuse_unknown(name, entry.after, self.entries, "notebook in `after`")
        everywhere = {parameter for declared in self.declared.values() for parameter in declared}
        self._refuse_unknown("shared", self.shared, everywhere, "parameter")

    def _refuse_unknown(self, where: str, names, known, what: str) -> None:
        for name in names:
            if name not in known:
                close = get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known)) or 'none'}."
                raise ValueError(f"profiles/{self.name}.yaml, {where}: unknown {what} {name!r}; {hint}")
