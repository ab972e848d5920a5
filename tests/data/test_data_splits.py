from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from raw_layouts import noise

from robustdistill.data import splits

N = 400
KEYS = splits.unpack(b"".join(splits.content_key(noise(f"splits/{i}")) for i in range(N)))
LABELS = np.arange(N) % 4
Positions = dict[str, NDArray[np.int64]]


def divide(
    keys: NDArray[np.void] = KEYS, labels: NDArray[np.int64] = LABELS, official: object = None
) -> splits.Division:
    return splits.divide(keys, labels, official, val=0.15, test=0.2)  # type: ignore[arg-type]


def ids(division: splits.Division, keys: NDArray[np.void] = KEYS) -> dict[str, set[int]]:
    return {name: set(keys["id"][part].tolist()) for name, part in division.positions.items()}


def test_the_key_of_an_image_is_the_same_on_every_machine() -> None:
    assert splits.content_key(np.zeros((1, 2, 2), np.uint8)).hex() == GOLDEN_KEY


GOLDEN_KEY = "9e9867bc5326e782913b2af93df334f5"


def test_the_key_tells_shapes_apart_and_ignores_memory_order() -> None:
    image = noise("a", (1, 4, 6))
    assert splits.content_key(image) != splits.content_key(image.reshape(1, 6, 4))
    assert splits.content_key(image) == splits.content_key(np.asfortranarray(image))


def test_ids_are_distinct_and_have_63_bits() -> None:
    assert len(np.unique(KEYS["id"])) == N
    assert KEYS["id"].min() >= 0


def test_splits_are_disjoint_complete_and_near_their_shares() -> None:
    found = ids(divide())
    assert found["train"] | found["val"] | found["test"] == set(KEYS["id"].tolist())
    assert sum(len(part) for part in found.values()) == N
    assert len(found["test"]) / N == pytest.approx(0.2, abs=0.06)
    assert len(found["val"]) / N == pytest.approx(0.8 * 0.15, abs=0.05)


ONE_CLASS = np.zeros(N, dtype=np.int64)
SHARES = st.floats(0.01, 0.49)


@settings(max_examples=30, deadline=None)
@given(st.integers(N // 2, N), st.permutations(range(8)))
def test_an_example_stays_in_its_split_as_data_grow_and_move(n: int, blocks: list[int]) -> None:
    everything = ids(divide(labels=ONE_CLASS))
    order = np.concatenate([np.arange(N)[block::8] for block in blocks])[:n]
    part = ids(divide(KEYS[order], ONE_CLASS[order]), KEYS[order])
    for name, members in part.items():
        assert members <= everything[name]


@settings(max_examples=30, deadline=None)
@given(st.integers(30, N), st.integers(30, N), st.sampled_from(["val", "test"]))
def test_a_small_class_takes_no_more_into_a_split_than_it_must(n: int, more: int, name: str) -> None:
    """Beyond the share it is the nearest to it, so that as data grow they leave and never come."""
    share = {"val": 0.15, "test": 0.2}[name]
    fewer, all_of_them = (divide(KEYS[:size], ONE_CLASS[:size]).positions for size in sorted((n, more)))
    beyond = [position for position in all_of_them[name] if splits.chance(KEYS[name][position]) >= share]
    if beyond:
        assert len(all_of_them[name]) == splits.MIN_EXAMPLES
    if name == "test":
        assert not set(beyond) & set(fewer["train"]) and not set(beyond) & set(fewer["val"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(30, 120), min_size=1, max_size=4), SHARES, SHARES, st.integers(0, 7), st.booleans())
def test_a_class_with_enough_has_ten_in_every_split_whatever_the_shares_and_the_other_classes(
    sizes: list[int], val: float, test: float, shift: int, repeated: bool
) -> None:
    rows = np.roll(np.arange(N), shift)[: sum(sizes)]
    labels = np.repeat(np.arange(len(sizes)), sizes)[: len(rows)]
    sizes = np.bincount(labels).tolist()
    if repeated:  # groups of equal images
        rows, labels = np.concatenate([rows, rows[::3]]), np.concatenate([labels, labels[::3]])
    keys = KEYS[rows]
    together = splits.divide(keys, labels, None, val=val, test=test)
    found = ids(together, keys)
    assert sum(len(part) for part in found.values()) == len(found["train"] | found["val"] | found["test"])
    for label, size in enumerate(sizes):
        alone = np.flatnonzero(labels == label)
        own = splits.divide(keys[alone], labels[alone], None, val=val, test=test)
        for name, members in ids(own, keys[alone]).items():
            assert members <= found[name]
            assert len(members) >= splits.MIN_EXAMPLES or size < 3 * splits.MIN_EXAMPLES


@given(st.lists(st.integers(20, 60), min_size=1, max_size=4), SHARES)
def test_beside_an_official_test_set_twenty_are_enough(sizes: list[int], val: float) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    official = np.arange(N) >= len(labels)
    y = np.concatenate([labels, np.zeros(N - len(labels), dtype=np.int64)])
    positions = splits.divide(KEYS, y, official, val=val, test=0.2).positions
    assert all((np.bincount(y[positions[name]]) >= splits.MIN_EXAMPLES).all() for name in ("train", "val"))


def test_shares_that_suffice_are_those_of_the_content_alone() -> None:
    """So that data which were enough before small classes were filled up are split as they were."""
    division = divide(labels=ONE_CLASS)
    in_test = splits.chance(KEYS["test"]) < 0.2
    in_val = ~in_test & (splits.chance(KEYS["val"]) < 0.15)
    assert in_test.sum() >= splits.MIN_EXAMPLES and in_val.sum() >= splits.MIN_EXAMPLES
    assert set(division.positions["test"]) == set(np.flatnonzero(in_test))
    assert set(division.positions["val"]) == set(np.flatnonzero(in_val))


def test_the_result_does_not_depend_on_the_order_of_the_raw_data() -> None:
    order = np.arange(N)[::-1]
    for name, part in divide(KEYS[order], LABELS[order]).positions.items():
        np.testing.assert_array_equal(order[part], divide().positions[name])


def test_of_duplicates_one_is_kept() -> None:
    twice = np.concatenate([np.arange(N), np.arange(10)])
    division = divide(KEYS[twice], LABELS[twice])
    assert division.removed == {"in_test": 0, "contradictory": 0, "duplicate": 10}
    assert ids(division, KEYS[twice]) == ids(divide())


def test_of_equal_images_with_different_labels_none_is_kept() -> None:
    twice = np.concatenate([np.arange(N), np.arange(3)])
    labels = LABELS[twice].copy()
    labels[-3:] = (labels[-3:] + 1) % 4
    division = divide(KEYS[twice], labels)
    assert division.removed == {"in_test": 0, "contradictory": 6, "duplicate": 0}
    assert not set.union(*ids(division, KEYS[twice]).values()) & set(KEYS["id"][:3].tolist())


def test_an_official_test_set_stays_whole_and_leaves_train() -> None:
    rows = np.concatenate([np.arange(N), np.arange(20), np.arange(5)])  # 20 of train also in test, 5 of them twice
    official = np.arange(len(rows)) >= N
    division = divide(KEYS[rows], LABELS[rows], official)
    assert sorted(division.positions["test"]) == list(range(N, N + 25))
    assert division.removed == {"in_test": 20, "contradictory": 0, "duplicate": 0}
    found = ids(division, KEYS[rows])
    assert not (found["train"] | found["val"]) & found["test"]


def test_a_limit_keeps_proportions_and_grows_into_a_larger_one() -> None:
    positions = np.arange(N)
    labels = np.where(np.arange(N) < 100, 1, 0)
    small, large = (splits.limited(positions, KEYS, labels, limit) for limit in (40, 80))
    assert len(small) == 40 and (labels[small] == 1).sum() == 10
    assert set(small) < set(large)
    np.testing.assert_array_equal(splits.limited(positions, KEYS, labels, None), positions)
