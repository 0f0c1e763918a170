"""Objectives: the loss of each kind of SAE on a batch, with its gradients written by hand.

An objective works in the units of the normalised input (mean |x|² = 1) and stores every parameter's gradient in
`.grad`; the trainer is the same for all kinds. Losses are means over the batch of squared errors summed over d.
Shapes: B rows, d width, F latents, G nested prefixes, nnz kept codes.
"""

from lib.registry import registered
from lib.sae.objectives.base import Objective, auxiliary_gradients, normalize_rows_, remove_parallel_
from lib.sae.objectives.penalised import GatedObjective, JumpReLUObjective, ReLUObjective
from lib.sae.objectives.sparse import SparseObjective

__all__ = [
    "OBJECTIVES",
    "Objective",
    "auxiliary_gradients",
    "normalize_rows_",
    "objective_of",
    "remove_parallel_",
    "trained_kinds",
]

OBJECTIVES: dict[str, type[Objective]] = {
    "relu": ReLUObjective,
    "topk": SparseObjective,
    "batchtopk": SparseObjective,
    "matryoshka": SparseObjective,
    "jumprelu": JumpReLUObjective,
    "gated": GatedObjective,
}
"""By kind of SAE; other packages register theirs as entry points (`lib.registry`)."""


def trained_kinds() -> list[str]:
    """The kinds of SAEs that can be trained."""
    return [*OBJECTIVES, *registered("objectives")]


def objective_of(kind: str) -> type[Objective]:
    """The objective that trains a kind. Raises ValueError for a kind that cannot be trained here."""
    if kind not in (kinds := trained_kinds()):
        known = ", ".join(kinds)
        raise ValueError(f"An SAE of kind {kind!r} can be loaded but not trained here; train one of {known}.")
    return OBJECTIVES[kind] if kind in OBJECTIVES else registered("objectives")[kind].load()
