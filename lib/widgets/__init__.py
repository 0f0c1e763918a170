"""Widgets of the book: each works with a kernel, and from its stored state in a page without one."""

from lib.widgets.feature_explorer import FeatureExplorer
from lib.widgets.hierarchy_tree import HierarchyTree
from lib.widgets.steering_panel import SteeringPanel, steering_features, write_page_files

__all__ = ["FeatureExplorer", "HierarchyTree", "SteeringPanel", "steering_features", "write_page_files"]
