"""Streaming metrics: ``update`` with what comes, ``merge`` with what others counted, ``compute`` at
any time.

State is a handful of sums, so accumulators pickle and merge in any order. Percentages are 0-100.
"""

from __future__ import annotations

from vpd.metrics.depth import DepthMetrics
from vpd.metrics.refer import PickScore, ReferMetrics
from vpd.metrics.semantic import SemanticMetrics

__all__ = ["DepthMetrics", "PickScore", "ReferMetrics", "SemanticMetrics"]
