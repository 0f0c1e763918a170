"""What a dictionary of features is worth: one file per metric, pure functions of tensors.

Activations come as `(N, F)`, dense or torch sparse CSR; a CSR matrix is never made dense.
"""

from lib.metrics.fidelity import PublishedReconstruction, ZeroShot, published_recovered, recovered, zero_shot
from lib.metrics.group_accuracy import (
    GroupAccuracy,
    accuracy_change,
    group_accuracy,
    proportion,
    worst_group_change,
)
from lib.metrics.hierarchy import Level, Parents, by_level, clades, lca_depth, majority_depth, parents
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
from lib.metrics.sparsity import Sparsity, centre_minus_border, sparsity
from lib.metrics.stability import (
    Matching,
    match_active_sets,
    match_codes,
    match_directions,
    random_directions,
    shuffled_codes,
)
from lib.metrics.steerability import (
    Steerability,
    concept_probabilities,
    coverage,
    expected_coverage,
    steerability,
)
from lib.metrics.steering_scores import (
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
    "GroupAccuracy",
    "Interval",
    "Level",
    "Matching",
    "Parents",
    "PublishedReconstruction",
    "Rates",
    "Reconstruction",
    "Sparsity",
    "Steerability",
    "Trend",
    "ZeroShot",
    "accuracy_change",
    "bootstrap",
    "by_level",
    "centre_minus_border",
    "clades",
    "concept_probabilities",
    "coverage",
    "crossed_mean",
    "expected_coverage",
    "feature_embeddings",
    "group_accuracy",
    "jaccard",
    "jaccard_counts",
    "jackknife_error",
    "jackknife_interval",
    "lca_depth",
    "majority_depth",
    "match_active_sets",
    "match_codes",
    "match_directions",
    "mean_difference",
    "mean_interval",
    "monosemanticity",
    "name_bounds",
    "parents",
    "proportion",
    "published_recovered",
    "random_directions",
    "rank_correlation",
    "rates",
    "reconstruction",
    "recovered",
    "shuffled_codes",
    "sparsity",
    "steerability",
    "steering_score",
    "trend_test",
    "worst_group_change",
    "zero_shot",
]
