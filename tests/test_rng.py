"""Draws are a pure function of seed, purpose, epoch, example and restart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustdistill.rng import Draws, derive, seeded

INDEX = torch.arange(512) * 7919 + 2**40
LIKE = torch.empty(512, 3, 4)


def test_a_draw_does_not_depend_on_the_batch_it_is_made_in() -> None:
    whole = Draws(1).uniform(LIKE, INDEX, "start")
    order = torch.arange(511, -1, -1)
    assert torch.equal(Draws(1).uniform(LIKE, INDEX[order], "start"), whole[order])
    assert torch.equal(Draws(1).uniform(LIKE[:5], INDEX[7:12], "start"), whole[7:12])


@pytest.mark.parametrize(
    "other",
    [Draws(2).uniform, Draws(1, epoch=1).uniform, Draws(1).fold("x").uniform, Draws(1).at(3).uniform],
    ids=["seed", "epoch", "fold", "at"],
)
def test_anything_else_gives_other_draws(other: object) -> None:
    again = other(LIKE, INDEX, "start")  # type: ignore[operator]
    assert not torch.equal(again, Draws(1).uniform(LIKE, INDEX, "start"))


def test_purpose_and_restart_give_other_draws() -> None:
    draws = [Draws(1).uniform(LIKE, INDEX, tag, restart=n) for tag, n in (("a", 0), ("b", 0), ("a", 1))]
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_uniform_and_normal_have_their_moments() -> None:
    like, index = torch.empty(2000, 50), torch.arange(2000)
    u, z = Draws(0).uniform(like, index, "u"), Draws(0).normal(like, index, "z")
    assert float(u.min()) >= 0 and float(u.max()) < 1
    assert float(u.mean()) == pytest.approx(0.5, abs=0.005) and float(u.var()) == pytest.approx(1 / 12, abs=0.002)
    assert float(z.mean()) == pytest.approx(0, abs=0.02) and float(z.std()) == pytest.approx(1, abs=0.02)
    rows, columns = np.corrcoef(u[:50].numpy()), np.corrcoef(u.numpy().T)
    assert np.abs(rows - np.eye(50)).max() < 0.7 and np.abs(columns - np.eye(50)).max() < 0.15


def test_a_choice_is_distinct_ascending_and_repeatable() -> None:
    chosen = Draws(3).choice(100, 40, "sample")
    assert len(set(chosen.tolist())) == 40 and (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, Draws(3).choice(100, 40, "sample"))
    assert sorted(Draws(3).permutation(100, "order").tolist()) == list(range(100))


def test_seeding_leaves_the_global_generator_as_it_was() -> None:
    before = torch.random.get_rng_state()
    with seeded(1, "weights"):
        first = torch.empty(3).uniform_()
    with seeded(1, "weights"):
        assert torch.equal(torch.empty(3).uniform_(), first)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_keys_tell_parts_and_types_apart() -> None:
    assert len({derive(1, 2), derive("1", "2"), derive("12"), derive(12), derive(2, 1)}) == 5
    assert 0 <= derive("x") < 2**63
