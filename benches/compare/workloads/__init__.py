"""What is done on each filesystem.

A workload makes its own data and returns nothing: the stopwatch of its place has what was measured.
"""

from __future__ import annotations

from . import applications, contents, files
from .place import SCALES, Place, Sizes, Workload

__all__ = ["SCALES", "Place", "Sizes", "Workload", "every_workload"]


def every_workload() -> list[Workload]:
    """All workloads, in the order of the tables."""
    return [*contents.WORKLOADS, *files.WORKLOADS, *applications.WORKLOADS]
