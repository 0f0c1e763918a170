"""Widgets of the book. Each works with a kernel, and without one from the state stored in the page."""

from widgets.feature_explorer import FeatureExplorer
from widgets.hierarchy_tree import HierarchyTree
from widgets.steering_panel import SteeringPanel, steering_features, write_page_files
from widgets.suppression_panel import SuppressionPanel

__all__ = [
    "FeatureExplorer",
    "HierarchyTree",
    "SteeringPanel",
    "SuppressionPanel",
    "steering_features",
    "write_page_files",
]
