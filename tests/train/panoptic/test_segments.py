"""Segments as trainings hold them: numbers in small maps, against labels read plainly."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from dense_toys import Split

from vpd.data import PanopticLabel, Segment, tabletop
from vpd.data.augment import sample_generator
from vpd.data.jitter import PanopticAugmentation
from vpd.images import to_network

pytest.importorskip("lightning")
from vpd.train.panoptic.segments import augmented_segments, counts_of, objects_of, segment_numbers


def as_sets(labels: torch.Tensor, masks: torch.Tensor) -> list[tuple[int, bytes]]:
    return sorted((int(c), m.numpy().tobytes()) for c, m in zip(labels, masks, strict=True))


@pytest.mark.parametrize("size", [128, 64])
def test_of_a_scene(size):
    label = tabletop.panoptic(Split("train", 1))[0].read_label()
    numbers = segment_numbers(label, size)
    assert numbers.dtype == torch.uint8
    (labels,), (masks,) = objects_of(numbers[None], [label.segments])
    small = cv2.resize(label.ids, (size, size), interpolation=cv2.INTER_NEAREST)
    assert as_sets(labels, masks) == as_sets(*PanopticLabel(small, label.segments).targets())
    assert counts_of(numbers[None]) == [len(labels)]


def label_of(ids: np.ndarray, *segments: Segment) -> PanopticLabel:
    return PanopticLabel(ids.astype(np.int32), segments)


def test_void_crowds_and_what_is_not_seen():
    ids = np.array([[7, 7, 0], [3, 3, 9], [3, 0, 9]])
    label = label_of(ids, Segment(3, 1), Segment(7, 0, crowd=True), Segment(9, 1), Segment(12, 2))
    numbers = segment_numbers(label, 3)
    assert numbers.tolist() == [[0, 0, 0], [1, 1, 3], [1, 0, 3]]
    labels, masks = objects_of(numbers[None], [label.segments])
    assert labels[0].tolist() == [1, 1]
    assert masks[0].tolist() == [(ids == 3).tolist(), (ids == 9).tolist()]
    empty = segment_numbers(label_of(np.zeros((4, 4))), 2)
    labels, masks = objects_of(torch.stack([empty, empty]), [(), label.segments])
    assert [own.shape for own in masks] == [(0, 2, 2), (0, 2, 2)]
    assert [own.tolist() for own in labels] == [[], []]
    assert counts_of(torch.stack([empty, empty])) == [0, 0]


def test_three_hundred_segments_and_more():
    ids = np.arange(400).reshape(20, 20) * 1000
    label = label_of(ids, *(Segment(int(one), int(one) % 7) for one in ids.ravel()[1:]))
    numbers = segment_numbers(label, 20)
    assert numbers.dtype == torch.int16
    both = torch.stack([numbers, segment_numbers(label_of(np.zeros((20, 20))), 20)])
    labels, masks = objects_of(both, [label.segments, ()])
    assert counts_of(both) == [399, 0]
    assert labels[0].tolist() == [s.category for s in label.segments]
    assert masks[0].sum((1, 2)).tolist() == [1] * 399
    assert [int(mask.flatten().int().argmax()) for mask in masks[0]] == list(range(1, 400))


def test_numbers_of_a_changed_picture_count_all_its_segments():
    sample = tabletop.panoptic(Split("train", 1))[0]
    augmentation = PanopticAugmentation((64, 64), scale=(1.5, 3.0))
    augment = augmented_segments(augmentation, 64)
    cut_off = 0
    for step in range(8):
        pixels, numbers = augment(sample, sample_generator(0, step, 0), step)
        picture, label = augmentation(*sample.read(), sample_generator(0, step, 0))
        torch.testing.assert_close(pixels[None], to_network(picture, (64, 64)))
        (labels,), (masks,) = objects_of(numbers[None], [sample.read_label().segments])
        assert as_sets(labels, masks) == as_sets(*label.targets())
        cut_off += len(sample.read_label().segments) - len(label.segments)
    assert cut_off > 0
