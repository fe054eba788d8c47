"""Which rows make a step: each once, the same steps however they are cut, budgets kept."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data import EvalBatches, Rows, Side, TrainBatches, collate
from finetune.data.batches import Batch

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=90)  # 0: an empty text, where a tokenizer adds nothing
CUTS = [(8, 1, 1), (1, 8, 1), (2, 4, 1), (4, 1, 2), (2, 2, 2), (1, 2, 4), (1, 1, 8)]  # size, accumulation, processes


def rows_of(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(offsets[-1])
    return Rows(offsets, {"input_ids": ids, "labels": ids})


def plans(rows, epoch, accumulation, processes, **settings):
    """The plan of every process of a run, step by step."""
    found = [
        list(
            TrainBatches(
                rows,
                0,
                gradient_accumulation_steps=accumulation,
                num_processes=processes,
                process_index=i,
                **settings,
            ).plan(epoch)
        )
        for i in range(processes)
    ]
    return list(zip(*found, strict=True))


def step_sets(plan):
    return [sorted(row for process in step for batch in process for row in batch) for step in plan]


@pytest.mark.parametrize("budget", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS, seed=st.integers(0, 3), epoch=st.integers(0, 2))
def test_every_row_once_and_the_same_steps_for_every_cut(budget, grouped, lengths, seed, epoch):
    rows = rows_of(lengths)
    found = []
    for size, accumulation, processes in CUTS:
        own = {"per_device_batch_size": size, "group_by_length": grouped, "seed": seed}
        if budget:
            own["tokens_per_batch"] = 40 * size
        plan = plans(rows, epoch, accumulation, processes, **own)
        found.append(step_sets(plan))
        assert sorted(itertools.chain.from_iterable(found[-1])) == list(range(len(lengths)))
        batches = TrainBatches(rows, 0, gradient_accumulation_steps=accumulation, num_processes=processes, **own)
        assert batches.steps_in(epoch) == len(plan)
        for step in plan:
            assert len({len(process) for process in step}) == 1  # sharded models wait for each other
            for batch in itertools.chain.from_iterable(step):
                if budget and batch:
                    assert len(batch) * max(lengths[row] for row in batch) <= 40 * size
                elif not budget:
                    assert len(batch) <= size
    assert all(steps == found[0] for steps in found)


def greedy(lengths, order, tokens):
    """The steps of a budget, row by row: a step ends where one more row, all as long as the longest, is too much."""
    steps = [[]]
    for row in order:
        with_it = [*steps[-1], row]
        if len(with_it) * max(max(lengths[i], 1) for i in with_it) > tokens and steps[-1]:
            steps.append([row])
        else:
            steps[-1] = with_it
    return steps


@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS, budget=st.integers(40, 200))
def test_a_budget_is_filled(lengths, budget):
    rows = rows_of(lengths)
    for grouped in (False, True):
        batches = TrainBatches(rows, 0, 16, tokens_per_batch=budget, group_by_length=grouped)
        if grouped:  # within one sorted part, since there are so few rows
            order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        else:
            order = np.random.default_rng((batches.seed, 0)).permutation(len(lengths)).tolist()
        counts = sorted(map(len, greedy(lengths, order, budget)))
        assert sorted(len(batch) for (batch,) in batches.plan(0)) == counts


def test_grouping_leaves_little_padding_and_is_another_one_each_epoch():
    lengths = np.random.default_rng(0).integers(3, 60, 4000)
    rows = rows_of(lengths)

    def padding(batches):
        taken = [max(lengths[batch]) * len(batch) for (batch,) in batches.plan(0)]
        return 1 - lengths.sum() / sum(taken)

    assert padding(TrainBatches(rows, 0, 16)) > 0.4
    grouped = TrainBatches(rows, 0, 16, group_by_length=True)
    assert padding(grouped) < 0.03
    assert padding(TrainBatches(rows, 0, 16, tokens_per_batch=512, group_by_length=True)) < 0.03
    mates = []
    for epoch in range(2):
        (batch,) = next(batch for batch in grouped.plan(epoch) if 7 in batch[0])
        mates.append(set(batch) - {7})
    assert len(mates[0] & mates[1]) <= 3
    steps = [float(np.mean(lengths[batch])) for (batch,) in grouped.plan(0)]
    assert abs(np.corrcoef(steps, range(len(steps)))[0, 1]) < 0.2  # steps of all lengths at all times
    again = TrainBatches(rows, 0, 16, group_by_length=True)
    assert list(again.plan(0)) == list(grouped.plan(0))
    assert list(again.plan(0, 5)) == list(grouped.plan(0))[5:]
    assert list(TrainBatches(rows, 0, 16, seed=1, group_by_length=True).plan(0)) != list(grouped.plan(0))


def test_a_row_longer_than_the_budget_is_named():
    batches = TrainBatches(rows_of([5, 41]), 0, 16, tokens_per_batch=40)
    with pytest.raises(ValueError, match="--tokens_per_batch 40: the longest input has 41 tokens"):
        batches.steps_in(0)


def test_rows_without_a_token_and_no_row_at_all():
    for grouped in (False, True):
        batches = TrainBatches(rows_of([0] * 50), 0, 16, tokens_per_batch=20, group_by_length=grouped)
        assert sorted(len(batch) for (batch,) in batches.plan(0)) == [10, 20, 20]
        for none in (None, 20):
            batches = TrainBatches(rows_of([]), 0, 16, tokens_per_batch=none, group_by_length=grouped)
            with pytest.raises(ValueError, match="no row to train on: the tokenizer makes nothing of"):
                batches.locate(0)


@pytest.mark.parametrize("N", [3, 10_001, 19_000])
def test_the_digest_tells_changed_rows(N):
    rows = rows_of([2] * N)
    before = TrainBatches(rows, 0, 16).digest()
    assert TrainBatches(rows_of([2] * N), 0, 16).digest() == before
    assert TrainBatches(rows_of([2] * (N + 1)), 0, 16).digest() != before
    noticed = 0
    for row in np.random.default_rng(0).integers(0, N, 60):
        changed = {key: values.copy() for key, values in rows.tokens.items()}
        changed["input_ids"][rows.offsets[row]] += 1
        noticed += TrainBatches(replace(rows, tokens=changed), 0, 16).digest() != before
    assert noticed >= 60 * min(1, 10_000 / N) - 15  # 10,000 rows, or all if fewer


def test_steps_are_found_again():
    batches = TrainBatches(rows_of([7, 9, 3, 30, 22, 8, 8, 8]), 0, 16, tokens_per_batch=32, group_by_length=True)
    counts = [batches.steps_in(epoch) for epoch in range(3)]
    assert batches.steps_of(3) == sum(counts)
    assert batches.locate(counts[0] + counts[1] + 1) == (2, 1)
    assert [len(list(batches.epoch(epoch))) for epoch in range(3)] == counts


@pytest.mark.parametrize("pad", [0, 7])
def test_a_batch_is_its_rows_and_padding(pad):
    rows = Rows(np.array([0, 1, 4]), {key: np.arange(1, 5) for key in ("input_ids", "labels", "token_type_ids")})
    inputs = {key: value.tolist() for key, value in collate(rows, pad, [1, 0]).inputs.items()}
    assert inputs["input_ids"] == [[2, 3, 4], [1, pad, pad]]  # RoBERTa tells positions by the padding's own id
    assert inputs["labels"] == [[2, 3, 4], [1, -100, -100]]
    assert inputs["token_type_ids"] == [[2, 3, 4], [1, 0, 0]]
    assert inputs["attention_mask"] == [[1, 1, 1], [1, 0, 0]]


def test_the_digest_tells_where_rows_end():
    ids = np.arange(5)
    first, second = (Rows(np.array([0, cut, 5]), {"input_ids": ids, "labels": ids}) for cut in (2, 3))
    assert TrainBatches(first, 0, 16).digest() != TrainBatches(second, 0, 16).digest()


def test_part_of_an_epoch_is_rounded_up():
    batches = TrainBatches(rows_of([1] * 7), 0, 1)
    assert [batches.steps_of(epochs) for epochs in (0.1, 0.5, 1, 1.01, 2.5)] == [1, 4, 7, 8, 18]
    batches = TrainBatches(rows_of([1] * 10), 0, 1)
    for tenths in range(1, 60):  # 2.1 - 2 is more than 0.1, and 10 times that more than 1
        assert batches.steps_of(tenths / 10) == tenths


def test_a_seed_is_not_another_seeds_next_epoch():
    rows = rows_of([1] * 50)
    plans = [list(TrainBatches(rows, 0, 1, seed=seed).plan(epoch)) for seed, epoch in ((0, 1), (1, 0), (0, 0))]
    assert plans[0] != plans[1] != plans[2] != plans[0]


def test_sorting_by_length_leaves_other_rows_together_in_each_epoch():
    """No two rows of one length: sorted all together, a row would meet its neighbours in every epoch."""
    batches = TrainBatches(rows_of(range(1, 1601)), 0, 4, group_by_length=True)
    pairs = [{frozenset(batch) for (batch,) in batches.plan(epoch)} for epoch in range(2)]
    assert len(pairs[0] & pairs[1]) < 40  # of 400 steps


def test_evaluation_puts_rows_of_a_length_together():
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    batches = EvalBatches(rows_of(lengths), 0, 8)
    made = [batches[i] for i in range(len(batches))]
    assert sorted(itertools.chain.from_iterable(batch.row_ids.tolist() for batch in made)) == list(range(500))
    assert sum(batch.inputs["input_ids"].numel() for batch in made) < 1.05 * lengths.sum()


def test_a_model_that_reads_from_the_right_is_padded_on_the_left():
    """XLNet's head looks at the last token: in a batch a text has the logits that it has alone."""
    from transformers import XLNetConfig, XLNetForSequenceClassification

    torch.manual_seed(0)
    model = XLNetForSequenceClassification(XLNetConfig(vocab_size=30, d_model=16, n_layer=2, n_head=2, d_inner=32))
    model.eval()
    lengths = [3, 9, 6]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.random.default_rng(0).integers(5, 30, offsets[-1])
    rows = Rows(offsets, {"input_ids": ids}, {"labels": np.zeros(3, np.int64)})
    together = collate(rows, 5, [0, 1, 2], pad_left=True)
    assert together.inputs["attention_mask"].tolist() == [[0] * (9 - n) + [1] * n for n in lengths]
    alone = [model(torch.from_numpy(ids[None, a:b])).logits for a, b in itertools.pairwise(offsets)]
    assert torch.allclose(model(**together.inputs).logits, torch.cat(alone), atol=1e-5)
    first, second = together.split(2)
    assert (first.inputs["input_ids"].shape, second.inputs["input_ids"].shape) == ((2, 9), (1, 6))
    assert second.inputs["attention_mask"].all()


def test_rows_are_padded_where_the_tokenizer_says(tokenizers):
    from finetune.data import eval_batches

    tokenizer = tokenizers["wordpiece"]
    assert eval_batches(rows_of([2, 5]), tokenizer, 2)[0].inputs["attention_mask"].tolist()[1] == [1, 1, 0, 0, 0]
    tokenizer.padding_side = "left"
    try:
        assert eval_batches(rows_of([2, 5]), tokenizer, 2)[0].inputs["attention_mask"].tolist()[1] == [0, 0, 0, 1, 1]
    finally:
        tokenizer.padding_side = "right"


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60),
    cut=st.sampled_from(CUTS),
)
def test_a_budget_counts_both_sides_as_long_as_they_are_padded(lengths, cut):
    sources, targets = np.array(lengths).T
    rows = replace(
        rows_of(sources), sides={"labels": Side(np.concatenate([[0], targets.cumsum()]), np.zeros(targets.sum()))}
    )
    _, accumulation, processes = cut
    budget = {"per_device_batch_size": 1, "tokens_per_batch": 60, "group_by_length": True}
    plan = plans(rows, 0, accumulation, processes, **budget)
    assert sorted(itertools.chain.from_iterable(step_sets(plan))) == list(range(len(lengths)))
    for step in plan:
        for ids in itertools.chain.from_iterable(step):
            batch = collate(rows, 0, ids or [0])
            padded = batch.inputs["input_ids"].numel() + batch.inputs["labels"].numel()
            assert padded <= 60
            assert batch.tokens == (sources + targets)[ids or [0]].sum()


def test_a_column_of_rows_is_not_cut_where_its_size_is_the_length_of_the_rows():
    """Six labels for each row, and rows of at most six tokens."""
    lengths = [6, 2, 2, 3]
    labels = np.arange(24, dtype=np.float32).reshape(4, 6)
    rows = Rows(np.cumsum([0, *lengths]), {"input_ids": np.arange(1, 14)}, {"labels": labels})
    parts = collate(rows, 0, range(4)).split(2)
    assert [part.inputs["input_ids"].shape[1] for part in parts] == [6, 3]
    assert np.array_equal(np.concatenate([part.inputs["labels"] for part in parts]), labels)


@pytest.mark.parametrize("count", [3, 2.5])
def test_a_process_without_rows_counts_in_the_same_numbers(count):
    """Processes add their counts as tensors, which must be of one dtype. Sums of weights are no whole numbers."""
    inputs = {"labels": torch.ones(1, 2, dtype=torch.int64), "attention_mask": torch.ones(1, 2, dtype=torch.int64)}
    some, none = (Batch(inputs, np.arange(rows), lambda _: {"loss": count}) for rows in (1, 0))
    assert (some.targets, none.targets) == ({"loss": count}, {"loss": 0})
    added = torch.tensor([*some.targets.values()]), torch.tensor([*none.targets.values()])
    assert added[0].dtype == added[1].dtype
