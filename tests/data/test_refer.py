"""The REFER reader on small hand-made copies of the official layouts."""

import json
import pickle

import cv2
import numpy as np
import pytest

from vpd.data import ReferDataset, check_refer
from vpd.data import check as check_module
from vpd.data.check import PublishedCount
from vpd.data.masks import encode_mask
from vpd.data.refer import in_split

SQUARE = [[2.0, 2.0, 8.0, 2.0, 8.0, 8.0, 2.0, 8.0]]
DISC = (np.hypot(*np.mgrid[-10:10, -15:15]) < 6).astype(bool)  # [20, 30]
IMAGES = {
    "refcoco": "images/mscoco/images/train2014/COCO_train2014_{:012d}.jpg",
    "refcoco+": "images/mscoco/images/train2014/COCO_train2014_{:012d}.jpg",
    "refcocog": "images/mscoco/images/train2014/COCO_train2014_{:012d}.jpg",
    "refclef": "images/saiapr_tc-12/{}.jpg",
}


def segmentation(kind):
    counts = np.diff([0, *(np.flatnonzero(np.diff(DISC.ravel(order="F"))) + 1), DISC.size])
    return {
        "polygon": SQUARE,
        "uncompressed": {"size": [20, 30], "counts": counts.tolist()},
        "compressed": encode_mask(DISC),
        "list": [encode_mask(DISC)],
    }[kind]


def ref(number, image_id, split, sentences, ann_id=None):
    ann_id = number if ann_id is None else ann_id
    return {
        "ref_id": number,
        "ann_id": ann_id,
        "image_id": image_id,
        "category_id": 3,
        "file_name": f"COCO_train2014_{image_id:012d}_{ann_id}.jpg",
        "split": split,
        "sent_ids": [number * 10 + i for i in range(len(sentences))],
        "sentences": [
            {"tokens": s.split(), "raw": s.upper(), "sent": s, "sent_id": number * 10 + i}
            for i, s in enumerate(sentences)
        ],
    }


def write(root, name="refcoco", split_by="unc", kinds=("polygon",), splits=("val",), dump=None):
    """One image, annotation and ref per entry of `splits`, plus a second object in each image."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations, refs = [], [], []
    for i, split in enumerate(splits, start=1):
        path = root / IMAGES[name].format(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.full((20, 30, 3), (10 * i, 0, 200), np.uint8)  # BGR
        path.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
        images.append({"id": i, "file_name": path.name, "height": 20, "width": 30})
        kind = kinds[i % len(kinds)]
        row = {"image_id": i, "bbox": [2, 2, 6, 6], "area": 36, "iscrowd": 0}
        annotations.append({"id": i, "category_id": 3, "segmentation": segmentation(kind), **row})
        other = {"id": i + 100, "category_id": 7, "segmentation": segmentation("compressed"), **row}
        annotations.append(other)
        refs.append(ref(i, i, split, ["left man", "man in red"]))
    categories = [{"id": 3, "name": "person"}, {"id": 7, "name": "dog"}]
    tables = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(tables))
    data = pickle.dumps(refs, 2) if dump is None else dump(refs)
    (folder / f"refs({split_by}).p").write_bytes(data)
    return refs, tables


@pytest.mark.parametrize("name", ["refcoco", "refcoco+", "refcocog", "refclef"])
def test_default_split_makers_and_folders(tmp_path, name):
    write(tmp_path, name, {"refcocog": "umd"}.get(name, "unc"), splits=("train", "val", "val"))
    data = ReferDataset(tmp_path, name)
    assert len(data) == len(data.refs) == 2
    assert len(data.pairs) == 4
    first = data.refs[0]
    assert (first.ref_id, first.ann_id, first.image_id) == (2, 2, 2)
    assert (first.category, first.split) == ("person", "val")
    assert [s.text for s in first.sentences] == ["left man", "man in red"]
    assert [s.id for s in first.sentences] == [20, 21]
    assert first.sentences[0].kind is None
    image = data.image(first)
    assert image.shape == (20, 30, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - (200, 0, 20)).max() < 6  # RGB, up to JPEG
    assert data.pairs[3] == (data.refs[1], data.refs[1].sentences[1])


@pytest.mark.parametrize("kind", ["polygon", "uncompressed", "compressed", "list"])
def test_every_kind_of_segmentation(tmp_path, kind):
    write(tmp_path, kinds=(kind,))
    data = ReferDataset(tmp_path, "refcoco")
    mask = data.mask(data.refs[0])
    assert mask.dtype == bool
    expected = DISC
    if kind == "polygon":
        expected = np.zeros((20, 30), bool)
        expected[2:8, 2:8] = True
    np.testing.assert_array_equal(mask, expected)
    instances = data.instances(data.refs[0])
    assert list(instances) == [1, 101]
    np.testing.assert_array_equal(instances[1], mask)
    np.testing.assert_array_equal(instances[101], DISC)
    assert data.categories(instances) == ["person", "dog"]


def test_mask_merge_reaches_the_masks(tmp_path):
    _, tables = write(tmp_path)
    tables["annotations"][0]["segmentation"] = SQUARE * 2
    (tmp_path / "refcoco" / "instances.json").write_text(json.dumps(tables))
    for merge, area in (("union", 36), ("sum_eq1", 0)):
        data = ReferDataset(tmp_path, "refcoco", mask_merge=merge)
        assert data.mask(data.refs[0]).sum() == area
    with pytest.raises(ValueError, match="mask_merge must be one of"):
        ReferDataset(tmp_path, "refcoco", mask_merge="sum")


def test_split_rules(tmp_path):
    splits = ("train", "val", "testA", "testB", "testAB", "testBC", "test", "trainval")
    write(tmp_path, splits=splits)
    for wanted, expected in {
        "train": ["train"],
        "val": ["val"],
        "test": ["testA", "testB", "testAB", "testBC", "test"],
        "testA": ["testA", "testAB"],
        "testB": ["testB", "testAB", "testBC"],
        "testC": ["testBC"],
        "testAB": ["testAB"],
    }.items():
        data = ReferDataset(tmp_path, "refcoco", split=wanted)
        assert [r.split for r in data.refs] == expected
    assert not in_split("val", "trainval")
    with pytest.raises(ValueError, match=r"expected split 'dev', found only: test, testA"):
        ReferDataset(tmp_path, "refcoco", split="dev")


def test_python2_pickle(tmp_path):
    def python2(refs):
        """Protocol 2 with byte strings, as cPickle of Python 2 writes str."""
        out = bytearray(b"\x80\x02")

        def put(v):
            if isinstance(v, dict):
                out.extend(b"}(")
                for key, value in v.items():
                    put(key)
                    put(value)
                out.extend(b"u")
            elif isinstance(v, list):
                out.extend(b"](")
                for value in v:
                    put(value)
                out.extend(b"e")
            elif isinstance(v, str):
                data = v.encode("latin-1")
                out.extend(b"U" + bytes([len(data)]) + data)
            else:
                out.extend(b"J" + int(v).to_bytes(4, "little"))

        refs[0]["sentences"][0]["sent"] = "the caf\u00e9 sign"
        put(refs)
        return bytes(out + b".")

    write(tmp_path, dump=python2)
    data = ReferDataset(tmp_path, "refcoco")
    assert [s.text for s in data.refs[0].sentences] == ["the caf\u00e9 sign", "man in red"]


def test_unicode_names(tmp_path):
    root = tmp_path / "données 数据"
    _, tables = write(root)
    folder = root / "images/mscoco/images/train2014"
    (folder / tables["images"][0]["file_name"]).rename(folder / "ряд ü.jpg")
    tables["images"][0]["file_name"] = "ряд ü.jpg"
    (root / "refcoco" / "instances.json").write_text(json.dumps(tables))
    data = ReferDataset(root, "refcoco")
    assert data.image(data.refs[0]).shape == (20, 30, 3)
    assert check_refer(root, "refcoco").ok


def test_exif_orientation_does_not_turn_the_picture(tmp_path):
    from PIL import Image

    write(tmp_path)
    data = ReferDataset(tmp_path, "refcoco")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to view
    Image.new("RGB", (30, 20), "red").save(data.image_path(data.refs[0]), exif=exif)
    assert data.image(data.refs[0]).shape == (20, 30, 3)


def test_grey_pictures_become_rgb(tmp_path):
    write(tmp_path)
    data = ReferDataset(tmp_path, "refcoco")
    grey = np.full((20, 30), 77, np.uint8)
    data.image_path(data.refs[0]).write_bytes(cv2.imencode(".png", grey)[1].tobytes())
    np.testing.assert_array_equal(data.image(data.refs[0]), np.full((20, 30, 3), 77))


def test_missing_and_damaged_files(tmp_path):
    refs, tables = write(tmp_path)
    folder = tmp_path / "refcoco"
    data = ReferDataset(tmp_path, "refcoco")
    picture = data.image_path(data.refs[0])

    picture.write_bytes(picture.read_bytes()[:100])
    with pytest.raises(ValueError, match="expected a picture, got 100 bytes"):
        data.image(data.refs[0])
    picture.write_bytes(cv2.imencode(".png", np.zeros((5, 6, 3), np.uint8))[1].tobytes())
    with pytest.raises(ValueError, match="expected 20 x 30 pixels as annotated, got 5 x 6"):
        data.image(data.refs[0])
    picture.unlink()
    with pytest.raises(FileNotFoundError, match=r"COCO_train2014_0+1.jpg: expected a picture"):
        data.image(data.refs[0])
    with pytest.raises(ValueError, match="image must be one of split 'val', got id 9"):
        data.instances(9)

    with pytest.raises(ValueError, match=r"data set must be one of refcoco, .* got 'coco'"):
        ReferDataset(tmp_path, "coco")
    with pytest.raises(ValueError, match=r"split_by of refcoco must be one of .* got 'umd'"):
        ReferDataset(tmp_path, "refcoco", "umd")
    with pytest.raises(FileNotFoundError, match=r"refs\(google\).p: expected the referring"):
        ReferDataset(tmp_path, "refcoco", "google")

    path = folder / "refs(unc).p"
    for broken, message in (
        ({}, "expected a list of refs, got dict"),
        ([{"ref_id": 1}], r"ref number 0 is not a REFER entry: KeyError\('sentences'\)"),
        ([refs[0], {**refs[0], "sentences": [{"sent": 3}]}], "ref number 1 .* is not text"),
        ([{**refs[0], "ann_id": None}], "ref number 0 is not"),
    ):
        path.write_bytes(pickle.dumps(broken, 2))
        with pytest.raises(ValueError, match=message):
            ReferDataset(tmp_path, "refcoco")
    path.write_bytes(pickle.dumps([{**refs[0], "ann_id": 55}], 2))
    with pytest.raises(ValueError, match="ref 1 of split 'val' needs annotation 55"):
        ReferDataset(tmp_path, "refcoco")
    path.write_bytes(pickle.dumps([{**refs[0], "image_id": 55}], 2))
    with pytest.raises(ValueError, match="needs image 55, which is not listed"):
        ReferDataset(tmp_path, "refcoco")
    path.write_bytes(pickle.dumps(refs, 2))

    instances = folder / "instances.json"
    whole = instances.read_text()
    instances.write_text(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"instances.json: expected JSON, but"):
        ReferDataset(tmp_path, "refcoco")
    instances.write_text(json.dumps({"images": []}))
    with pytest.raises(ValueError, match="expected COCO instances with a list 'annotations'"):
        ReferDataset(tmp_path, "refcoco")
    del tables["annotations"][0]["image_id"]
    instances.write_text(json.dumps(tables))
    with pytest.raises(ValueError, match="expected 'image_id' of type int in number 0 of annot"):
        ReferDataset(tmp_path, "refcoco")
    instances.unlink()
    with pytest.raises(FileNotFoundError, match="expected the annotations here"):
        ReferDataset(tmp_path, "refcoco")


def test_damaged_annotation_is_named(tmp_path):
    _, tables = write(tmp_path)
    tables["annotations"][0]["segmentation"] = {"size": [20, 30], "counts": "zzz"}
    (tmp_path / "refcoco" / "instances.json").write_text(json.dumps(tables))
    data = ReferDataset(tmp_path, "refcoco")
    with pytest.raises(ValueError, match=r"instances.json: annotation 1: segmentation counts"):
        data.mask(data.refs[0])


def test_datasets_travel_to_worker_processes(tmp_path):
    write(tmp_path)
    data = pickle.loads(pickle.dumps(ReferDataset(tmp_path, "refcoco")))
    assert data.mask(data.refs[0]).sum() == 36


def test_check_counts_and_names_what_is_missing(tmp_path):
    write(tmp_path, splits=("train", "train", "val", "testA", "testB"))
    (tmp_path / IMAGES["refcoco"].format(2)).unlink()
    (tmp_path / IMAGES["refcoco"].format(4)).unlink()
    report = check_refer(tmp_path, "refcoco")
    assert [(s.split, s.refs, s.sentences) for s in report.splits] == [
        ("train", 2, 4),
        ("val", 1, 2),
        ("testA", 1, 2),
        ("testB", 1, 2),
    ]
    assert not report.recognised
    assert not report.ok
    assert report.images == 5
    assert report.missing_images == (
        "COCO_train2014_000000000002.jpg",
        "COCO_train2014_000000000004.jpg",
    )
    text = report.table(names=1)
    assert "not a published variant" in text
    assert "missing pictures (2): COCO_train2014_000000000002.jpg and 1 more" in text
    assert "42404 / 120624" in text
    assert "pictures: 3 of 5" in text


def test_check_recognises_published_counts(tmp_path, monkeypatch):
    write(tmp_path, "refcocog", "umd", splits=("train", "val", "test"))
    expected = {s: PublishedCount(1, 2, verified=False) for s in ("train", "val", "test")}
    monkeypatch.setitem(check_module.PUBLISHED, ("refcocog", "umd"), expected)
    report = check_refer(tmp_path, "refcocog")
    assert report.recognised
    assert report.ok
    assert "counts as published" in report.table()
    assert "same (recalled, unverified)" in report.table()
    assert report.found_split_bys == ("umd",)


def test_check_names_refs_without_annotation(tmp_path):
    refs, _ = write(tmp_path, splits=("train", "val"))
    refs[1]["ann_id"] = 77
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    report = check_refer(tmp_path, "refcoco")
    assert report.missing_annotations == (2,)
    assert not report.ok
    assert "absent; 1975 / 5657" in report.table()


def test_duplicates(tmp_path):
    refs, tables = write(tmp_path, splits=("val", "val"))
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([*refs, refs[0]], 2))
    report = check_refer(tmp_path, "refcoco")
    assert report.repeated_refs == (1,)
    assert not report.ok
    assert "refs that occur repeatedly (1): 1" in report.table()
    tables["annotations"].append(tables["annotations"][0])
    (tmp_path / "refcoco" / "instances.json").write_text(json.dumps(tables))
    with pytest.raises(ValueError, match="expected every annotation id once, got 1 repeated"):
        ReferDataset(tmp_path, "refcoco")


def test_published_counts_of_the_specification():
    verified = {k: all(c.verified for c in v.values()) for k, v in check_module.PUBLISHED.items()}
    assert verified == {
        ("refcoco", "unc"): True,
        ("refcoco+", "unc"): False,
        ("refcocog", "umd"): False,
        ("tabletop", "vpd"): True,
    }
