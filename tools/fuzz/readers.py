"""The readers of vpd, each as a function of a folder that holds what it reads.

One file in the folder is damaged; whole ones are put beside it from the corpus of other targets.
A reader reads all that it finds, values included: what is wrong must not come out later.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

from fuzz import CORPUS

PICTURE = ("image", "good.jpg")  # 20 x 30 pixels


def _beside(folder: Path, name: str, target: str, file: str) -> Path:
    """A whole file from the corpus, unless something is there under that name."""
    path = folder / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CORPUS / target / file, path)
    return path


def weights(folder: Path) -> None:
    from vpd.weights import read_state_dict

    (path,) = folder.glob("w.*")
    for tensor in read_state_dict(path)[0].values():
        tensor.clone()


def refer(folder: Path) -> None:
    from vpd.data import ReferDataset, check_refer

    _beside(folder, "refcoco/refs(unc).p", "refer-refs", "good.p")
    _beside(folder, "refcoco/instances.json", "refer-instances", "good.json")
    _beside(folder, "images/mscoco/images/train2014/1.jpg", *PICTURE)
    check_refer(folder, "refcoco").table()
    for merge in ("union", "sum_eq1"):
        data = ReferDataset(folder, "refcoco", mask_merge=merge)
        for ref in data.refs:
            masks = data.instances(ref)
            data.categories(masks)
            data.mask(ref)
            if data.image_path(ref).name == "1.jpg":
                data.image(ref)


def instances(folder: Path) -> None:
    from vpd.data.instances import InstanceFile

    file = InstanceFile(folder / "instances.json", {1: 0, 2: 1})
    for image_id in (1, 2, "1"):
        file.of(image_id, (20, 30))


def panoptic(folder: Path) -> None:
    from vpd.data import coco_panoptic

    _beside(folder, "annotations/panoptic_val2017.json", "coco-panoptic", "good.json")
    _beside(folder, "panoptic_val2017/1.png", "panoptic-map", "good.png")
    _beside(folder, "val2017/1.jpg", *PICTURE)
    for sample in coco_panoptic(folder, "val"):
        _, label = sample.read()
        label.areas()
        sample.read_instances()


def nyu_mat(folder: Path) -> None:
    from vpd.data import extract_nyu_mat, nyuv2

    mat = _beside(folder, "nyu_depth_v2_labeled.mat", "nyu-mat", "good.mat")
    splits = _beside(folder, "splits.mat", "nyu-splits", "good.mat")
    shutil.rmtree(folder / "out", ignore_errors=True)
    extract_nyu_mat(mat, splits, folder / "out", progress=False)
    for sample in (*nyuv2(folder / "out", "train"), *nyuv2(folder / "out", "test")):
        sample.read()


def nyu_list(folder: Path) -> None:
    from vpd.data import nyuv2

    _beside(folder, "sync/kitchen_0001/rgb_00001.jpg", *PICTURE)
    _beside(folder, "sync/kitchen_0001/sync_depth_00001.png", "depth", "good.png")
    for sample in nyuv2(folder, "train"):
        sample.read()


def depth(folder: Path) -> None:
    from vpd.data.depth import DepthSample

    (path,) = folder.glob("depth.*")
    DepthSample("", path, path, 0, 0.001).read_depth()


def label(folder: Path) -> None:
    from vpd.data.labels import direct, read_stored

    path = folder / "label.png"
    direct(8).decode(read_stored(path), path)


def image(folder: Path) -> None:
    from vpd.data.files import read_rgb
    from vpd.images import read_image, to_network

    to_network(folder / "image.png", 32)
    for pixels in (read_image(folder / "image.png"), read_rgb(folder / "image.png")):
        assert pixels.ndim == 3
        assert pixels.size


def text(folder: Path) -> None:
    import vpd
    from vpd.tokens import token_words

    said = (folder / "text.txt").read_bytes().decode("utf-8", "surrogateescape")
    for length in (2, 40):
        tokens = vpd.tokenize(said, length=length)
        assert tokens.ids.shape == (1, length)
        assert 0 <= int(tokens.ids.min()) <= int(tokens.ids.max()) < vpd.tokens.VOCABULARY_SIZE
        columns = [column for word in token_words(said, length) for column in word.tokens]
        assert columns == list(range(1, len(columns) + 1)), columns
        assert len(columns) <= length - 2


def merges(folder: Path) -> None:
    from vpd import _C

    tokenizer = _C.Tokenizer(str(folder / "merges.txt"))
    tokenizer(["the red ball"], 8)


def model_config(folder: Path) -> None:
    from vpd.tasks import store

    store.read_config(folder)


@functools.cache
def _parser() -> Any:
    from vpd.cli.parser import build
    from vpd.cli.train import train

    return build("train", train)


def train_config(folder: Path) -> None:
    parser = _parser()
    try:
        parser.instantiate(parser.parse_args(["--config", str(folder / "recipe.yaml")]))
    except ValueError as error:  # whoever gave the file knows its name
        raise ValueError(f"recipe.yaml: {error}") from error


def cache(folder: Path) -> None:
    from vpd.train.caching.row_store import RowStore

    store = RowStore(folder)
    for key in (b"a", b"b", b"c"):
        if key in store:
            store.read([key])


def triplets(folder: Path) -> None:
    from vpd.data.triplets import read_triplets

    read_triplets(folder / "a.jsonl")


def tags(folder: Path) -> None:
    from vpd.tags import TagSet
    from vpd.tags.cached import CachedTagger

    path = folder / "tags.json"
    said = path.read_bytes()
    if said.lstrip()[:1] == b"[" or b'"tags"' in said[:10]:
        TagSet.read(path)
    else:
        tagger = CachedTagger(path)
        tagger.tags("a.jpg") if "a.jpg" in tagger.table else tagger.names
