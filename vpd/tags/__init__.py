"""Tags: words for what is in a picture, and who says them.

A :class:`TagSet` is a vocabulary; a tagger has ``tags(picture)``, the words and how sure it is of
each. Pictures are what people have (paths, arrays) or samples of vpd's data sets.
"""

from vpd.tags.attention import tag_attention
from vpd.tags.cached import CachedTagger, PictureTable, read_captions, write_tags
from vpd.tags.clip import ClipTagger, read_clip
from vpd.tags.ram import RamTagger
from vpd.tags.result import TagResult
from vpd.tags.tabletop import TabletopTagger
from vpd.tags.tag_set import TagSet, read_thresholds
from vpd.tags.tagger import Tag, Tagger

__all__ = [
    "CachedTagger",
    "ClipTagger",
    "PictureTable",
    "RamTagger",
    "TabletopTagger",
    "Tag",
    "TagResult",
    "TagSet",
    "Tagger",
    "read_captions",
    "read_clip",
    "read_thresholds",
    "tag_attention",
    "write_tags",
]
