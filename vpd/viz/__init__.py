"""Pictures of results.

Figures are of class :class:`Picture`, a matplotlib figure that notebooks draw by themselves. No
function touches pyplot, so nothing is left behind and no display is needed.
"""

from vpd.viz.figures import (
    Comparison,
    comparison_sheet,
    confidence_map,
    maps_figure,
    noise_figure,
    refer_figure,
)
from vpd.viz.files import save_refer
from vpd.viz.overlay import colorize, overlay_heat, overlay_mask
from vpd.viz.page import Band, Panel, Picture, page

__all__ = [
    "Band",
    "Comparison",
    "Panel",
    "Picture",
    "colorize",
    "comparison_sheet",
    "confidence_map",
    "maps_figure",
    "noise_figure",
    "overlay_heat",
    "overlay_mask",
    "page",
    "refer_figure",
    "save_refer",
]
