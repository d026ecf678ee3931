"""Batches of keys: complete, shared over processes, resumed in the middle; a loader that stalls."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import ToySet

from mindvis.common.errors import InputError
from mindvis.training.loaders import EvalSampler, TrainSampler, WatchedLoader


def rows(batches) -> list[int]:
    return [index for batch in batches for _, _, index in batch]


def test_an_epoch_holds_every_sample_once_and_its_keys_name_seed_and_epoch():
    sampler = TrainSampler(11, 3, seed=7, position=lambda: (4, 0))
    batches = list(sampler)
    assert sorted(rows(batches)) == list(range(11))
    assert [len(batch) for batch in batches] == [3, 3, 3, 2]
    assert {key[:2] for batch in batches for key in batch} == {(7, 4)}


def test_order_follows_from_seed_and_epoch():
    def order(seed, epoch):
        return rows(TrainSampler(20, 4, seed=seed, position=lambda: (epoch, 0)))

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1) != order(2, 1)


def test_a_resumed_epoch_goes_on_with_the_next_batch():
    whole = list(TrainSampler(11, 2, seed=0, position=lambda: (1, 0)))
    assert list(TrainSampler(11, 2, seed=0, position=lambda: (1, 4))) == whole[4:]


@settings(max_examples=60, deadline=None)
@given(samples=st.integers(4, 40), batch=st.integers(1, 5), processes=st.integers(1, 4))
def test_processes_see_together_the_batches_of_one_process(samples, batch, processes):
    one = list(TrainSampler(samples, batch * processes, seed=5))
    ranks = [list(TrainSampler(samples, batch, seed=5, rank=r, world_size=processes)) for r in range(processes)]
    assert len({len(batches) for batches in ranks}) == 1
    for step, together in enumerate(zip(*ranks, strict=True)):
        assert [key for part in together for key in part] == one[step]
    assert len(one) - len(ranks[0]) <= 1  # only a rest of fewer samples than processes is left out


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 40), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_loss_weights_make_every_sample_of_a_step_count_alike(samples, batch, processes, accumulate):
    ranks = [TrainSampler(samples, batch, seed=5, rank=r, world_size=processes) for r in range(processes)]
    length = len(ranks[0])
    for first in range(0, length, accumulate):
        step = range(first, min(first + accumulate, length))
        parts = [(len(list(r)[i]), r.loss_weight(i, accumulate)) for r in ranks for i in step]
        per_sample = [weight / size / processes / accumulate for size, weight in parts]
        assert per_sample == pytest.approx([1 / sum(size for size, _ in parts)] * len(parts))


@settings(max_examples=60, deadline=None)
@given(samples=st.integers(4, 40), batch=st.integers(1, 5), processes=st.integers(1, 4))
def test_validation_sees_every_sample_once_with_equal_numbers_of_batches(samples, batch, processes):
    ranks = [list(EvalSampler(samples, batch, rank=r, world_size=processes)) for r in range(processes)]
    assert sorted(rows(b for batches in ranks for b in batches)) == list(range(samples))
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(b) >= 1 for batches in ranks for b in batches)


def test_fewer_samples_than_processes_are_refused():
    with pytest.raises(InputError, match="1 samples for 2 processes"):
        TrainSampler(1, 3, seed=0, world_size=2)


class Stuck(ToySet):
    def __getitem__(self, key):
        time.sleep(0.3 if key[2] == 2 else 0.0)
        return super().__getitem__(key)


def test_a_stalled_loader_is_named_and_its_time_counted(caplog):
    batches = [[(0, 0, i)] for i in range(4)]
    loader = WatchedLoader(Stuck(), name="train", stall_seconds=0.1, batch_sampler=batches)
    assert len(list(loader)) == 4
    assert caplog.messages == [
        "data loader 'train' has given no batch for 0.1 s (batch 3 of 4, num_workers=0): is the storage stuck?"
    ]
    assert 0.3 < loader.waited < 1.0
