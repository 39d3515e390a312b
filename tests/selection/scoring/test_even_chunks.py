"""Passes over texts, cut by length."""

import torch

from rhostream.loaders.stream import Batch
from rhostream.selection.scoring import even_chunks, in_even_chunks


def batch_of(lengths, width):
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    ids = torch.arange(len(lengths))[:, None] * mask
    return Batch(fields={"input_ids": ids, "attention_mask": mask}, labels=torch.zeros(len(lengths)))


def test_chunks_follow_each_other_and_cost_about_the_same():
    lengths = sorted(torch.randint(1, 100, (320,), generator=torch.Generator().manual_seed(0)).tolist())
    bounds = even_chunks(lengths)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 320
    assert [end for _, end in bounds[:-1]] == [first for first, _ in bounds[1:]]
    costs = [(end - first) * lengths[end - 1] for first, end in bounds]
    assert len(bounds) > 4
    assert sum(costs) < 0.7 * 320 * lengths[-1]
    assert max(costs) < 3 * min(costs)


def test_few_or_alike_texts_are_one_chunk():
    assert even_chunks([3, 5, 9]) == [(0, 3)]
    assert even_chunks([64] * 320) == [(0, 320)]


def test_rows_come_back_in_the_order_of_the_batch():
    lengths = torch.randint(1, 60, (200,), generator=torch.Generator().manual_seed(1)).tolist()
    batch, seen = batch_of(lengths, 60), []

    def run(part):
        seen.append(part.fields["input_ids"].shape)
        return torch.stack((part.fields["input_ids"].amax(1), part.fields["attention_mask"].sum(1)), 1).float()

    rows = in_even_chunks(run, batch)
    assert len(seen) > 1
    assert all(shape[1] % 8 == 0 or shape[1] == 60 for shape in seen)
    assert rows[:, 0].tolist() == list(range(200))
    assert rows[:, 1].tolist() == lengths


def test_images_are_run_as_they_are():
    batch = Batch(fields={"image": torch.zeros(4, 1, 2, 2)}, labels=torch.zeros(4))
    assert in_even_chunks(lambda part: part, batch) is batch
