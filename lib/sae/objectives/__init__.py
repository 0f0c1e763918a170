"""What each kind of SAE minimises on a batch, with the gradients written by hand.

An objective works in the units of the normalised input (mean |x|² = 1) and leaves every parameter's gradient in
`.grad`; the trainer knows nothing else about kinds. Losses are means over the batch of squared errors summed over d.
Shapes: B rows, d width, F latents, G nested prefixes, nnz kept codes.
"""

from lib.sae.objectives.archetypal import ArchetypalObjective
from lib.sae.objectives.base import Objective, auxiliary_gradients, normalize_rows_, remove_parallel_
from lib.sae.objectives.penalised import GatedObjective, JumpReLUObjective, ReLUObjective
from lib.sae.objectives.sparse import SparseObjective
from lib.sae.objectives.variational import VariationalObjective

__all__ = ["OBJECTIVES", "Objective", "auxiliary_gradients", "normalize_rows_", "remove_parallel_"]

OBJECTIVES: dict[str, type[Objective]] = {
    "relu": ReLUObjective,
    "topk": SparseObjective,
    "batchtopk": SparseObjective,
    "matryoshka": SparseObjective,
    "jumprelu": JumpReLUObjective,
    "gated": GatedObjective,
    "vsae": VariationalObjective,
    "archetypal": ArchetypalObjective,
}
"""By kind of SAE."""
