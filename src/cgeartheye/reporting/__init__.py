"""The report: figures and one self-contained HTML page from finished stage folders."""

from cgeartheye.reporting.document import report

__all__ = ["report"]
