"""What a dictionary of features is worth: one file per metric, pure functions of tensors.

Activations come as `(N, F)`, dense or torch sparse CSR; a CSR matrix is never made dense.
"""

from lib.metrics.monosemanticity import monosemanticity
from lib.metrics.reconstruction import Reconstruction, reconstruction
from lib.metrics.sparsity import Sparsity, sparsity
from lib.metrics.uniqueness import jaccard

__all__ = ["Reconstruction", "Sparsity", "jaccard", "monosemanticity", "reconstruction", "sparsity"]
