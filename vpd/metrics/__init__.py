"""Streaming metrics: ``update`` with what comes, ``merge`` with what others counted, ``compute`` at
any time.

State is a handful of sums (of tags all scores, of instances their run lengths), so accumulators
pickle and merge in any order. Percentages are 0-100.
"""

from __future__ import annotations

from vpd.metrics.depth import DepthMetrics
from vpd.metrics.edit import EditRegionMetrics, EditScores, EditSimilarity, edit_scores
from vpd.metrics.instance import InstanceMetrics
from vpd.metrics.panoptic import PanopticMetrics
from vpd.metrics.refer import PickScore, ReferMetrics
from vpd.metrics.semantic import SemanticMetrics
from vpd.metrics.tagging import PrecisionRecall, TagMetrics

__all__ = [
    "DepthMetrics",
    "EditRegionMetrics",
    "EditScores",
    "EditSimilarity",
    "InstanceMetrics",
    "PanopticMetrics",
    "PickScore",
    "PrecisionRecall",
    "ReferMetrics",
    "SemanticMetrics",
    "TagMetrics",
    "edit_scores",
]
