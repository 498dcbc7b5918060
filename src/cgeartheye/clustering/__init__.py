"""Hierarchical k-means, reproducible bit for bit, and even selection from its clusters."""

from cgeartheye.clustering.balance import capped_shares, grouped_shares, select_balanced
from cgeartheye.clustering.kmeans import Clustering, assign, kmeans
from cgeartheye.clustering.rows import Picked, Rows
from cgeartheye.clustering.tree import Tree, build_tree, default_levels

__all__ = [
    "Clustering",
    "Picked",
    "Rows",
    "Tree",
    "assign",
    "build_tree",
    "capped_shares",
    "default_levels",
    "grouped_shares",
    "kmeans",
    "select_balanced",
]
