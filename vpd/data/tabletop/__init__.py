"""Tabletop: a small procedurally rendered world with every label the tasks need.

```python
from vpd.data import tabletop

scene = tabletop.render(7)  # image, instance, semantic, depth_m, objects
tabletop.expressions(scene, random.Random(0), per_kind=1)
split = tabletop.load_split("val")  # cached on disk, rendered on first use
image, label = tabletop.semantic(split)[0].read()  # samples as the readers of data sets give them
```

The world is frozen: pictures, grammar and splits of VERSION never change.
"""

from vpd.data.tabletop.captions import TAGS, caption, captions, tags
from vpd.data.tabletop.edits import EDIT_KINDS, EDIT_WORDS, SceneEdit, edit_scene, edits
from vpd.data.tabletop.expressions import KINDS, Expression, expressions, floors
from vpd.data.tabletop.phrases import WORDS, head_attributes
from vpd.data.tabletop.pictures import SCENES, THINGS, depth, panoptic, semantic
from vpd.data.tabletop.render import Scene, SceneObject, render
from vpd.data.tabletop.sampling import sample_scene
from vpd.data.tabletop.spec import (
    CLASSES,
    COLORS,
    IMAGE_SIZE,
    MATERIALS,
    SHAPES,
    SIZES,
    TARGET_PX,
    VERSION,
    VISIBLE_PX,
    CameraSpec,
    FloorSpec,
    LightSpec,
    ObjectSpec,
    SceneSpec,
    WallSpec,
)
from vpd.data.tabletop.splits import (
    SPLITS,
    ChunkedArray,
    TabletopSplit,
    expressions_for,
    load_split,
)

__all__ = [
    "CLASSES",
    "COLORS",
    "EDIT_KINDS",
    "EDIT_WORDS",
    "IMAGE_SIZE",
    "KINDS",
    "MATERIALS",
    "SCENES",
    "SHAPES",
    "SIZES",
    "SPLITS",
    "TAGS",
    "TARGET_PX",
    "THINGS",
    "VERSION",
    "VISIBLE_PX",
    "WORDS",
    "CameraSpec",
    "ChunkedArray",
    "Expression",
    "FloorSpec",
    "LightSpec",
    "ObjectSpec",
    "Scene",
    "SceneEdit",
    "SceneObject",
    "SceneSpec",
    "TabletopSplit",
    "WallSpec",
    "caption",
    "captions",
    "depth",
    "edit_scene",
    "edits",
    "expressions",
    "expressions_for",
    "floors",
    "head_attributes",
    "load_split",
    "panoptic",
    "render",
    "sample_scene",
    "semantic",
    "tags",
]
