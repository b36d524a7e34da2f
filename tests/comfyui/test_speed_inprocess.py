"""Nothing inside a block waits for the device, and what a noise level needs is worked out once for many pictures."""

from __future__ import annotations

import pytest
import torch
from controls_world import WAYS, edited, retrieved, steered
from torch.utils._python_dispatch import TorchDispatchMode

# What makes the host wait for the device, or copies from the host in the middle of a block.
SYNCS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "lift_fresh", "masked_select", "item", "_to_cpu")


class Trap(TorchDispatchMode):
    """Notes every operation that would wait, and every move between devices."""

    def __init__(self):
        super().__init__()
        self.caught, self.seen, self.made = [], 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen += 1
        name = func.overloadpacket.__name__
        if name in SYNCS or (name == "_to_copy" and (kwargs or {}).get("device") is not None):
            self.caught.append(name)
        out = func(*args, **(kwargs or {}))
        self.made += sum(
            one.nbytes for one in (out if isinstance(out, (tuple, list)) else (out,)) if torch.is_tensor(one)
        )
        return out


@pytest.fixture
def trap(world, monkeypatch):
    """Set inside our part of every block: the attention hook's own work and what follows the block."""
    trap = Trap()
    classes = [
        world.plugin("nodes.injection.model.xlabs").ActiveXLabs, world.plugin("nodes.injection.model.instantx_sd3").ActiveInstantX,
        world.plugin("nodes.injection.model.instantx_flux").ActiveInstantXFlux, world.plugin("nodes.injection.model.shared_attention").ActiveShared,
        world.plugin("nodes.injection.model.shared_attention").Recorder,
    ]  # fmt: skip
    for one in classes:
        for name in ("attention", "after_block"):

            def trapped(self, *args, inner=getattr(one, name)):
                with trap:
                    return inner(self, *args)

            monkeypatch.setattr(one, name, trapped)
    return trap


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("combine", ["concat", "sum", "average", "norm average", "subtract"])
@pytest.mark.parametrize("masked", [False, True])
def test_no_block_waits_for_the_device(world, trap, way, combine, masked):
    references = edited(world, retrieved(world, 1, 2), 1, weight=2.0, mask=torch.rand(1, 6, 6) if masked else None)
    model = steered(world, way, references, combine=combine, balance=1.0, apply_to="both")
    world.call(model, kinds=(1, 0), batch=2)
    assert trap.seen > 50 and not trap.caught


@pytest.mark.parametrize("way", WAYS)
def test_what_a_block_makes_and_what_stays_do_not_grow_with_the_steps(world, trap, way):
    model = steered(world, way, retrieved(world, 1, 2))
    alive = world.plugin("nodes.bench.run").alive
    cache, made, stay = getattr(injection_of(world, model), "cache", None), [], []
    for sigma in (0.9, 0.8, 0.7, 0.5, 0.3):
        before = trap.made
        world.call(model, sigma=sigma, kinds=(1, 0))
        made.append(trap.made - before)
        # SD3.5 InstantX keeps what it worked out for a noise level, up to a cap
        stay.append(alive(torch.device("cpu")) - (cache.size if cache else 0))
    assert made[0] > 0 and len(set(made)) == 1
    assert len(set(stay[1:])) == 1


def test_the_trap_catches_what_it_should():
    with Trap() as trap:
        x = torch.rand(3)
        x.sum().item(), bool(x[0] > 2), torch.tensor([1.0])
    assert len(trap.caught) >= 3


class Counter:
    """Counts calls of a method of one adapter."""

    def __init__(self, monkeypatch, owner, name):
        self.count, inner = 0, getattr(owner, name)

        def counted(*args):
            self.count += 1
            return inner(*args)

        monkeypatch.setattr(owner, name, counted)


def injection_of(world, model):
    (injection,) = world.plugin("nodes.injection.model.patch").injections_of(model)
    return injection


def test_sd35_works_out_tokens_once_for_each_noise_level_not_for_each_picture(world, monkeypatch):
    model = steered(world, "sd35 instantx", retrieved(world, 1, 2))
    injection = injection_of(world, model)
    tokens = Counter(monkeypatch, type(injection.managed.adapter), "tokens")
    keys = Counter(monkeypatch, type(injection.managed.adapter), "keys_values")
    first = world.sample(model, steps=3)
    assert tokens.count == 6 and keys.count == 12  # 3 noise levels, 2 sides, 2 blocks
    second = world.sample(model.clone(), steps=3)
    assert tokens.count == 6 and keys.count == 12 and torch.equal(first, second)
    world.sample(model, steps=2)
    assert tokens.count > 6


def test_what_is_kept_stays_under_its_cap_and_the_picture_is_the_same(world):
    model = steered(world, "sd35 instantx", retrieved(world, 1))
    first, cache = world.sample(model, steps=4), injection_of(world, model).cache
    small = steered(world, "sd35 instantx", retrieved(world, 1))
    limited = injection_of(world, small).cache
    limited.cap = cache.size // 3
    for _ in range(3):
        assert torch.equal(world.sample(small, steps=4), first)
    assert 0 < limited.size <= limited.cap and limited.hits > 0


def test_another_schedule_takes_the_place_of_one_no_longer_asked_for(world):
    cache = world.plugin("nodes.injection.model.sigma_cache").SigmaCache(cap=8)  # two entries of four bytes
    made = []

    def ask(*sigmas):
        for sigma in sigmas:
            cache.begin(sigma)
            cache.get(sigma, lambda: made.append(1) or (torch.ones(1),))

    ask(1.0, 0.5, 0.2)
    ask(1.0, 0.5, 0.2)
    assert len(made) == 4 and set(cache.entries) == {1.0, 0.5}  # full: the first ones are kept
    ask(0.9, 0.4)
    ask(0.9, 0.4)
    assert set(cache.entries) == {0.9, 0.4} and cache.size == 8
    cache.clear()
    assert not cache.entries and cache.size == 0
