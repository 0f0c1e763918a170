"""What a dictionary of features is worth: one file per metric, pure functions of tensors.

Activations come as `(N, F)`, dense or torch sparse CSR; a CSR matrix is never made dense.
"""

from lib.metrics.hierarchy import Level, Parents, by_level, clades, lca_depth, majority_depth, parents
from lib.metrics.intervals import Interval, bootstrap, jackknife_error, rank_correlation
from lib.metrics.monosemanticity import monosemanticity
from lib.metrics.reconstruction import Reconstruction, reconstruction
from lib.metrics.sparsity import Sparsity, sparsity
from lib.metrics.stability import (
    Matching,
    match_active_sets,
    match_codes,
    match_directions,
    random_directions,
    shuffled_codes,
)
from lib.metrics.steering import (
    Rates,
    crossed_mean,
    feature_embeddings,
    mean_difference,
    name_bounds,
    rates,
    steering_score,
)
from lib.metrics.trends import Trend, trend_test
from lib.metrics.uniqueness import jaccard, jaccard_counts

__all__ = [
    "Interval",
    "Level",
    "Matching",
    "Parents",
    "Rates",
    "Reconstruction",
    "Sparsity",
    "Trend",
    "bootstrap",
    "by_level",
    "clades",
    "crossed_mean",
    "feature_embeddings",
    "jaccard",
    "jackknife_error",
    "jaccard_counts",
    "lca_depth",
    "majority_depth",
    "match_active_sets",
    "match_codes",
    "match_directions",
    "mean_difference",
    "monosemanticity",
    "name_bounds",
    "parents",
    "random_directions",
    "rank_correlation",
    "rates",
    "reconstruction",
    "shuffled_codes",
    "sparsity",
    "steering_score",
    "trend_test",
]
