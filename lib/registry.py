"""What installed packages add: kinds of pictures, names of models, and how kinds of SAEs are trained.

A package registers by entry points in its pyproject.toml, in a group `monosemantic_vision.<what>`:

- `images`: a class that is a `lib.images.source.Source`, made from what follows the colon of a spec, with `FORM`, how a
  spec of it is written, and `CODE`, if there is any, the modules that its pictures depend on.
- `encoders`, `llavas`: a function that returns the spec of a model for which the name stands.
- `objectives`: by kind of SAE, a class that is a `lib.sae.objectives.Objective`.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points


@cache
def registered(what: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name; `.load()` gives the object."""
    return {point.name: point for point in entry_points(group=f"monosemantic_vision.{what}")}
