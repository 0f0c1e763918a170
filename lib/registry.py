"""Registry of plug-ins: image sources, public names, models, SAE objectives and file formats of installed packages.

A package registers by entry points in its pyproject.toml, in a group `monosemantic_vision.<what>`:

- `images`: a class that is a `lib.images.source.Source`, made from what follows the colon of a spec, with `FORM`, how a
  spec of it is written, and `CODE`, if there is any, the modules that its pictures depend on.
- `names`: a public name of `lib` that lives in a package above it, such as `Intervention`.
- `encoders`, `llavas`: a function that returns the model's spec.
- `objectives`: by kind of SAE, a class that is a `lib.sae.objectives.Objective`.
- `formats`: by library, a module with `Checkpoint(path)`, whose `str` lists what a file of weights holds and whose
  `check(sae)` raises where part of it was not read; `recognises(checkpoint)`; and `load(checkpoint, fallback)`, which
  returns the `lib.SAE`. fallback: settings to use where the file has none.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points


@cache
def registered(what: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name; `.load()` gives the object."""
    return {point.name: point for point in entry_points(group=f"monosemantic_vision.{what}")}
