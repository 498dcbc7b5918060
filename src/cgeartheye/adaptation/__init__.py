"""`adapt`: a task model from a frozen backbone and labels."""

from cgeartheye.adaptation.stage import adapt

__all__ = ["adapt"]
