"""Hierarchical k-means, reproducible bit for bit, and even selection from its clusters."""

from cgeartheye.clustering.balance import capped_shares, select_balanced
from cgeartheye.clustering.kmeans import Clustering, kmeans
from cgeartheye.clustering.tree import Tree, build_tree, default_levels

__all__ = ["Clustering", "Tree", "build_tree", "capped_shares", "default_levels", "kmeans", "select_balanced"]
