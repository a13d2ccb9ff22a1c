"""Vocabularies: as typed, as label sets, the sets that come with vpd."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpd.data.naming import class_names, plain
from vpd.data.tabletop.pictures import NAMES, THINGS
from vpd.data.tabletop.spec import CLASSES
from vpd.tasks import store
from vpd.tokens import tokenize
from vpd.vocabulary import LABEL_SETS, Vocabulary, data_vocabulary, label_set


def test_as_typed():
    words = Vocabulary.parse(" Black  pickup truck,pickup truck ;blue sky, sky;; ring ,; ")
    assert words.categories == (
        ("Black pickup truck", "pickup truck"), ("blue sky", "sky"), ("ring",)
    )  # fmt: skip
    assert words.names == ("Black pickup truck", "blue sky", "ring")
    assert words.words == ("Black pickup truck", "pickup truck", "blue sky", "sky", "ring")
    assert words.owners == (0, 0, 1, 1, 2)
    assert words.things == (True, True, True)
    assert len(words) == 3
    assert repr(words) == "Vocabulary(3: Black pickup truck, blue sky, ring)"
    assert hash(words) == hash(
        Vocabulary.parse("Black pickup truck,pickup truck;blue sky,sky;ring")
    )


def test_one_word_and_two_thousand():
    assert Vocabulary.parse("cube").categories == (("cube",),)
    many = Vocabulary.parse(";".join(f"word {i}, name {i}" for i in range(2000)))
    assert len(many) == 2000
    assert many.owners[-2:] == (1999, 1999)


def test_names_given_twice():
    assert Vocabulary.parse("Cube, cube, cu_be, cu be; ring").categories == (
        ("Cube", "cu_be"), ("ring",)
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"'BOX' in 'cube, box' and in 'BOX, crate'"):
        Vocabulary.parse("cube, box; ring; BOX, crate")
    with pytest.raises(ValueError, match=r"each name in one category, got 'ring'"):
        Vocabulary.of(["ring", "cube", "ring"])
    shared = Vocabulary((("door",), ("door", "gate")))  # label sets of data sets have such
    assert shared.owners == (0, 1, 1)


def test_stuff():
    words = Vocabulary.parse("cube, box; sky, blue sky; floor", stuff="Blue_sky, floor")
    assert words.things == (True, False, False)
    assert words.with_stuff(["BOX"]).things == (False, False, False)
    with pytest.raises(ValueError, match="stuff must be names of its categories, got 'sea'"):
        words.with_stuff(["floor", "sea"])


def test_any_way_to_say_it():
    words = Vocabulary.parse("cube, box; ring")
    assert Vocabulary.of(words) is words
    assert Vocabulary.of("cube, box; ring") == words
    assert Vocabulary.of(["a red cube", "ring"]).categories == (("a red cube",), ("ring",))
    assert Vocabulary.of(("ring",)).names == ("ring",)


def test_seen_are_those_that_share_a_name():
    words = Vocabulary.parse("kitten, Cat; dog; sky, cloud")
    training = Vocabulary.parse("cat; Cloud, fog; zebra")
    assert words.seen(training) == (True, False, True)
    assert words.seen(words) == (True, True, True)


def test_a_label_set_around_what_is_asked_for():
    words = Vocabulary.parse("traffic cone; cat, kitten") + label_set("coco_panoptic")
    assert len(words) == 2 + 133 - 1  # both names of COCO's cat are there
    assert words.names[:3] == ("traffic cone", "cat", "person")
    assert words.things.count(False) == 53
    assert words.names.count("cat") == 1
    short = Vocabulary.parse("a, b") + Vocabulary.parse("c, B_; a, e; d", stuff="d")
    assert short.categories == (("a", "b"), ("c",), ("d",))
    assert short.things == (True, True, False)


def write(tmp_path, text: str):
    path = tmp_path / "labels.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_label_file(tmp_path):
    path = write(
        tmp_path,
        "\ufeff0:invalid_class_id\n1:wall,walls,brick wall\n\n# a remark\n3:person, child\n"
        "7:sky:blue sky\n2:invalid_class_id\n",
    )
    words = Vocabulary.read(path)
    assert words.categories == (
        ("wall", "walls", "brick wall"), ("person", "child"), ("sky:blue sky",)
    )  # fmt: skip
    assert words.things == (True, True, True)
    assert Vocabulary.read(path, stuff="walls").things == (False, True, True)


def test_stuff_of_a_label_file(tmp_path):
    words = Vocabulary.read(
        write(tmp_path, "# Stuff: 1, 3-4\n1:wall\n2:cat\n3:sky\n4:sea\n9:dog\n#stuff:9\n")
    )
    assert words.things == (False, True, False, False, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1:wall\nwall\n", r"labels.txt:2: expected 'id:name1,name2,...', got 'wall'"),
        ("1:wall\nx:sky\n", r"labels.txt:2: expected 'id:"),
        ("-1:wall\n", r"labels.txt:1: expected 'id:"),
        ("1:wall\n2: , \n", r"labels.txt:2: expected names behind 2:, got none"),
        ("1:wall\n\n1:sky\n", r"labels.txt:3: expected every id once, got 1 of line 1 again"),
        ("1:wall\n# stuff: 1, x\n", r"labels.txt:2: expected ids of stuff .*, got 'x'"),
        ("1:wall\n# stuff: 3-1\n", r"labels.txt:2: expected ids of stuff .*, got '3-1'"),
        ("# stuff: 0-999999999\n1:wall\n", r"labels.txt:1: expected ids of stuff"),
        ("# stuff: 1-2\n1:wall\n", r"labels.txt:1: expected ids of this file, got 2"),
        ("", r"labels.txt: vocabulary: expected at least one category, got none"),
        ("0:invalid_class_id\n", r"labels.txt: vocabulary: expected at least one category"),
    ],
)
def test_faulty_label_files_are_explained(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.read(write(tmp_path, text))


def test_unreadable_label_files(tmp_path):
    with pytest.raises(OSError, match=r"none\.txt"):
        Vocabulary.read(tmp_path / "none.txt")
    path = tmp_path / "labels.txt"
    path.write_bytes(b"1:caf\xe9\n")
    with pytest.raises(ValueError, match="expected a label set in UTF-8"):
        Vocabulary.read(path)


_NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters=",:", exclude_categories=("C", "Z")), min_size=1
)


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.tuples(st.lists(_NAMES, min_size=1), st.booleans()), min_size=1))
def test_files_hold_any_vocabulary(tmp_path_factory, rows):
    try:
        words = Vocabulary(tuple(tuple(names) for names, _ in rows), tuple(t for _, t in rows))
    except ValueError:
        return  # a name of underscores alone, say
    if ("invalid_class_id",) in words.categories:
        return
    path = words.save(tmp_path_factory.mktemp("labels") / "own.txt")
    assert Vocabulary.read(path) == words


def test_what_no_file_can_hold(tmp_path):
    with pytest.raises(ValueError, match=r"cannot hold the name 'a, b'"):
        Vocabulary.of(["a, b"]).save(tmp_path / "own.txt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Vocabulary.parse(""), ValueError, "expected names such as .*, got ''"),
        (lambda: Vocabulary.parse(" , ; ,"), ValueError, "expected names such as"),
        (lambda: Vocabulary.parse(None), TypeError, "expected a string, got NoneType"),
        (lambda: Vocabulary.of(3), TypeError, "a sequence of names, got int"),
        (lambda: Vocabulary.of([]), ValueError, "at least one category, got none"),
        (lambda: Vocabulary.of(["cube", ""]), ValueError, "category 2 has an empty name"),
        (lambda: Vocabulary.of(["cube", 3]), TypeError, "expected names, got int"),
        (lambda: Vocabulary((("a",), ())), ValueError, "category 2 has no name"),
        (lambda: Vocabulary(("a", "b")), TypeError, "names of category 1 in a sequence, got str"),
        (lambda: Vocabulary((("a",),), (True, False)), ValueError, "each of 1 categories, got 2"),
        (lambda: label_set("coco"), ValueError, "must be one of ade20k_150, .*, got 'coco'"),
    ],
)
def test_bad_input_is_explained(call, error, message):
    with pytest.raises(error, match=message):
        call()


SIZES = {
    "ade20k_150": (150, 50),
    "cityscapes_19": (19, 11),
    "coco_panoptic": (133, 53),
    "lvis_1203": (1203, 0),
    "pascal_context_59": (59, 20),
    "pascal_voc_21": (21, 1),
    "tabletop_colors": (10, 2),
    "tabletop_shapes": (8, 2),
}


def test_label_sets_that_come_with_vpd():
    assert tuple(sorted(SIZES)) == LABEL_SETS
    for name, (categories, stuff) in SIZES.items():
        words = label_set(name)
        assert (len(words), words.things.count(False)) == (categories, stuff), name
        known = [plain(word) for word in words.words]
        assert len(set(known)) == len(known), name  # no name in two categories
        assert all(word.isascii() for word in words.words)
        assert label_set(name, synonyms=False).words == words.names


@pytest.mark.parametrize(
    ("name", "data"),
    [("ade20k_150", "ade20k"), ("cityscapes_19", "cityscapes"), ("coco_panoptic", "coco_panoptic")],
)
def test_label_sets_have_the_order_of_their_data(name, data):
    """COCO's file calls them `wall-brick` and `tree-merged`; CLIP is told what people say."""
    for own, official in zip(label_set(name).names, class_names(data), strict=True):
        kept = {part for part in official.split("-") if part not in ("stuff", "other", "merged")}
        stems = {"wood": "wooden", "tile": "tiled", "playingfield": "playing field"}
        words = {stems.get(part, part) for part in kept}
        assert all(word in own for word in words) or own.split()[-1] in words, (own, official)


def test_tabletop_words():
    words = Vocabulary.of(CLASSES).with_stuff(CLASSES[:2])
    assert words.things == (False, False, *(True,) * 6)


@pytest.mark.parametrize("by", ["shape", "color"])
def test_tabletop_label_sets(by):
    words = label_set(f"tabletop_{by}s")
    assert words.names == NAMES[by]
    assert words.things == tuple(i > 1 for i in range(len(words)))
    known = set(store.read_config("vpd-mini").clip.text.vocab_subset)

    def read(name: str) -> tuple[int, ...]:
        """What vpd-mini reads of a name: all words that it does not know are the same to it."""
        tokens = tokenize([name], length=16)
        return tuple(i if i in known else -1 for i in tokens.ids[0, : tokens.mask.sum()].tolist())

    told = [frozenset(read(name) for name in names) for names in words.categories]
    assert len(set(told)) == len(told)
    for names in words.categories:
        assert any(-1 not in read(name) for name in names), names


def test_what_a_data_set_calls_its_classes():
    assert data_vocabulary("tabletop", CLASSES, THINGS) == label_set("tabletop_shapes")
    assert data_vocabulary("coco-panoptic", CLASSES, THINGS) == label_set("tabletop_shapes")
    colors = label_set("tabletop_colors")
    assert data_vocabulary("tabletop", colors.names, colors.things, "color") == colors
    coco = label_set("coco_panoptic")
    own = [f"stored name {i}" for i in range(133)]
    assert data_vocabulary("coco-panoptic", own, coco.things) == coco
    other = data_vocabulary("coco-panoptic", own, (True,) * 133)
    assert other.categories == tuple((name,) for name in own)
    assert data_vocabulary("folder", ["a", "b"], [True, False]).things == (True, False)


def test_nouns_of_a_caption():
    words = Vocabulary.of_caption("A small red cube behind a ball on the left.")
    assert words.names == ("small red cube", "ball")
    with pytest.raises(ValueError, match="a caption with nouns, got 'on the'"):
        Vocabulary.of_caption("on the")


def test_a_label_set_by_name_or_file(tmp_path):
    assert Vocabulary.named("pascal_voc_21") == label_set("pascal_voc_21")
    own = Vocabulary.parse("cube, box; sky", stuff="sky")
    assert Vocabulary.named(own.save(tmp_path / "own.txt")) == own
    with pytest.raises(OSError, match="nowhere"):
        Vocabulary.named("nowhere.txt")
