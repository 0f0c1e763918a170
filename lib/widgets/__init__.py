"""Widgets of the book: each works with a kernel, and from its stored state in a page without one."""

from lib.widgets.feature_explorer import FeatureExplorer
from lib.widgets.hierarchy_tree import HierarchyTree
from lib.widgets.steering_panel import SteeringPanel, steering_features, write_page_files
from lib.widgets.suppression_panel import SuppressionPanel

__all__ = [
    "FeatureExplorer",
    "HierarchyTree",
    "SteeringPanel",
    "SuppressionPanel",
    "steering_features",
    "write_page_files",
]
