"""Metrics of SAE features: one file per metric, pure functions of tensors.

Activations come as `(N, F)`, dense or torch sparse CSR; a CSR matrix is never made dense.
"""

from lib.metrics.fidelity import ZeroShot, recovered, zero_shot
from lib.metrics.intervals import (
    Interval,
    bootstrap,
    jackknife_error,
    jackknife_interval,
    mean_interval,
    rank_correlation,
)
from lib.metrics.monosemanticity import monosemanticity
from lib.metrics.reconstruction import Reconstruction, reconstruction
from lib.metrics.sparsity import Sparsity, sparsity
from lib.metrics.stability import (
    Matching,
    match_codes,
    match_directions,
    random_directions,
    shuffled_codes,
)
from lib.metrics.uniqueness import jaccard, jaccard_counts

__all__ = [
    "Interval",
    "Matching",
    "Reconstruction",
    "Sparsity",
    "ZeroShot",
    "bootstrap",
    "jaccard",
    "jaccard_counts",
    "jackknife_error",
    "jackknife_interval",
    "match_codes",
    "match_directions",
    "mean_interval",
    "monosemanticity",
    "random_directions",
    "rank_correlation",
    "reconstruction",
    "recovered",
    "shuffled_codes",
    "sparsity",
    "zero_shot",
]


def __getattr__(name: str):
    """Raise AttributeError; for a metric that has moved to `experiments`, it says where to."""
    from lib import missing

    raise missing(__name__, name)
