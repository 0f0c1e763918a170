"""Widgets of the book: each works with a kernel, and from its stored state in a page without one."""

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
