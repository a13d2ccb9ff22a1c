"""The first so many sentences or objects, against a walk over all pairs."""

from __future__ import annotations

import pytest

from vpd.data import tabletop
from vpd.data.refer import ReferDataset
from vpd.data.subset import Subset
from vpd.data.tabletop.layout import write_refer
from vpd.tasks.samples import refer_samples


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subset")
    write_refer(folder, ("train",), {"train": 6}, cache_dir=folder, workers=1, progress=False)
    return folder


@pytest.mark.parametrize("count", [1, 2, 5, 17, 10_000])
def test_sentences_in_file_order(root, count):
    whole = ReferDataset(root, "tabletop", split="train")
    part = ReferDataset(root, "tabletop", split="train", subset=Subset(count))
    texts = [(ref.ref_id, s.text) for ref, s in whole.pairs][:count]
    assert [(ref.ref_id, s.text) for ref, s in part.pairs] == texts
    assert all(ref.sentences for ref in part.refs)


def test_objects_keep_all_their_sentences(root):
    whole = ReferDataset(root, "tabletop", split="train")
    part = ReferDataset(root, "tabletop", split="train", subset=Subset(4, "ref"))
    assert part.refs == whole.refs[:4]


@pytest.mark.parametrize("subset", [Subset(7), Subset(16), Subset(5, "ref")])
def test_rendered_scenes_have_the_subset_of_the_files(root, subset):
    """Where an object's sentences are cut, the file's first ones stay, of all kinds."""
    rendered = refer_samples(tabletop.load_split("train", root, 1, 6), subset)
    on_disk = refer_samples(ReferDataset(root, "tabletop", split="train", subset=subset))
    found = [sorted(q.text for q in picture.questions) for picture in rendered]
    assert found == [sorted(q.text for q in picture.questions) for picture in on_disk]


@pytest.mark.parametrize(
    ("arguments", "message"), [((0,), "at least 1 sentence"), ((1, "image"), "'sentence' or 'ref'")]
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        Subset(*arguments)
