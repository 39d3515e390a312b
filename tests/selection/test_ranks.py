"""One choice for all ranks of a job: real processes over gloo, each of which scores its part of a super-batch."""

import json
from typing import Any

import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from helpers.ranks import on_jobs
from helpers.tiny import write_il, write_workspace
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from rhostream.errors import RhostreamError
from rhostream.loaders import CandidateStream, CorpusMetadata, Order, ReadOptions, Workspace
from rhostream.pipeline.config import ThumbnailsConfig
from rhostream.pipeline.thumbnails import write_thumbnails
from rhostream.selection import Handover, Ledger, LiveIL, OnlineSelector, ScoreCache, SelectionConfig

pytestmark = pytest.mark.slow
ROWS = (60, 70, 58)
CHUNK = 12
BATCH, SUPER_BATCH = 12, 48
#: Settings of the selector and of the stream; {} is Algorithm 1.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "thumbnails": ({}, {"thumbnails": "4-jpeg"}),
    "ahead": ({"score_ahead": True}, {}),
    "uniform": (
        {"select": "uniform", "batch_size": BATCH},
        {"super_batch_size": BATCH, "order": Order(block_shards=2)},
    ),
    "drawn": ({"select": SelectionConfig(function="grad_norm", rule="importance", batch_size=BATCH)}, {}),
    "dropout": ({"select": SelectionConfig(function="bald", class_floor=0.5, batch_size=BATCH)}, {}),
    "share": ({"select": SelectionConfig(share=0.6, batch_size=BATCH)}, {}),
    "floor": ({"select": SelectionConfig(score_floor=0.2, batch_size=BATCH)}, {}),
    "cached": ({"cache": ScoreCache(3)}, {"super_batch_size": 94}),
    "live": ({}, {"il": None}),
    "handover": ({}, {}),
}
#: What may differ by rounding.
ROUNDED = ("loss", "score", "il", "weight")


def network() -> nn.Sequential:
    """Without statistics of the batch in training, which would follow the ranks' shares."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())


def model_of(variant: str) -> nn.Module:
    return nn.Sequential(network(), *([nn.Dropout(0.3)] if variant == "dropout" else []), nn.Linear(16, 3))


def stream_of(workspace: str, **settings: Any) -> CandidateStream:
    defaults = {
        "il": "strided_cnn",
        "super_batch_size": SUPER_BATCH,
        "order": Order(block_shards=2, last="keep", chunk_size=CHUNK),
        "read_options": ReadOptions(threads=1, max_unreadable=5),
    }
    return CandidateStream(workspace, **(defaults | settings))


def selections(workspace: str, variants: str) -> dict[str, Any]:
    """Two epochs of each variant; the keys that this rank was given, and the weights that it ends with."""
    dist.init_process_group("gloo")
    found = {}
    for variant in json.loads(variants):
        found[variant] = trained(workspace, variant)
    dist.destroy_process_group()
    return found


def trained(workspace: str, variant: str) -> dict[str, Any]:
    settings, of_stream = VARIANTS[variant]
    torch.manual_seed(1)
    model = model_of(variant).eval()  # dropout is that of the draws alone
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    ddp = together(model, ranks)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.5)
    if variant == "handover":
        settings = {"select": Handover(SelectionConfig(batch_size=BATCH), guess=9.0, prefilter=False)}
        settings["select"].over = True
    live = LiveIL(together(model_of(variant), ranks), optimizer) if variant == "live" else None
    with Ledger(workspace, f"{variant}-{ranks}") as ledger:
        selector = OnlineSelector(ddp, **{"batch_size": BATCH} | settings, live_il=live, ledger=ledger, seed=3)
        stream, keys, states = stream_of(workspace, **of_stream), [], []
        for _ in range(2):
            for batch in selector(stream):
                keys.append(list(batch.keys))
                states.append(selector.state_dict())
                assert [f"s{number}" for number in numbers(batch.images, stream)] == keys[-1]
                (cross_entropy(ddp(batch.images), batch.labels, reduction="none") * batch.weights).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                if live is not None:
                    live.update(batch)
    waiting = [state["queue"]["candidates"]["keys"] for state in states if state["queue"] is not None]
    return {
        "keys": keys,
        "weights": [float(each.detach().double().sum()) for each in model.parameters()],
        "waiting": waiting,
    }


def together(model: nn.Module, ranks: int) -> nn.Module:
    return model if ranks == 1 else DistributedDataParallel(model)


def numbers(images: torch.Tensor, stream: CandidateStream) -> list[int]:
    """Those of the samples, which the first pixel of each image tells."""
    first = images[:, :, 0, 0].cpu()
    mean, std = torch.tensor(stream.corpus.image_spec().mean), torch.tensor(stream.corpus.image_spec().std)
    pixels = ((first * std + mean) * 255).round().int()
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = write_workspace(tmp_path_factory.mktemp("ranks") / "w", ROWS)
    write_il(made)
    write_thumbnails(made, ThumbnailsConfig(size=4, format="jpeg", workers=0))
    garble(made, "s50")
    return made


def garble(workspace: Workspace, key: str) -> None:
    for shard in CorpusMetadata.read(workspace).shards:
        for row in workspace.read_table(shard.index).to_pylist():
            if row["key"] == key:
                with open(workspace.path(shard.tar), "r+b") as tar:  # noqa: PTH123
                    tar.seek(row["offset"] + row["size"] // 2)
                    tar.write(b"garbled!")


#: By the number of ranks. Three ranks have four chunks to score.
VARIANTS_OF = {2: ["plain"], 3: list(VARIANTS), 4: ["plain"]}


@pytest.fixture(scope="module")
def told(workspace: Workspace) -> list[list[Any]]:
    """What all jobs return, rank by rank: those of `VARIANTS_OF`, and the failures."""
    place = workspace.location
    asked = [(ranks, "selections", (place, json.dumps(variants))) for ranks, variants in VARIANTS_OF.items()]
    return on_jobs("selection.test_ranks", [*asked, (2, "failures", (place,))])


@pytest.fixture(scope="module")
def jobs(workspace: Workspace, told: list[list[Any]]) -> dict[int, list[dict[str, Any]]]:
    """What each rank has found, by the number of ranks."""
    found = dict(zip(VARIANTS_OF, told, strict=False))
    return {1: [{variant: trained(workspace.location, variant) for variant in VARIANTS}], **found}


def ranks_of(variant: str) -> tuple[int, ...]:
    return (2, 3, 4) if variant == "plain" else (3,)


def ledger_of(workspace: Workspace, run: str) -> pa.Table:
    folder = f"runs/{run}/ledger"
    return pa.concat_tables([workspace.read_table(f"{folder}/{name}") for name in workspace.names(folder)])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_ledger_and_the_weights_are_those_of_one_rank(workspace, jobs, variant):
    alone = ledger_of(workspace, f"{variant}-1")
    assert alone.num_rows > 100
    for ranks in ranks_of(variant):
        together = ledger_of(workspace, f"{variant}-{ranks}")
        for name in alone.column_names:
            if name == "run":
                continue
            one, other = alone[name].to_pylist(), together[name].to_pylist()
            assert other == (pytest.approx(one, abs=1e-4) if name in ROUNDED else one), name
        weights = [job[variant]["weights"] for job in jobs[ranks]]
        assert weights == [pytest.approx(jobs[1][0][variant]["weights"], abs=1e-4)] * ranks


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_rank_gets_an_even_share_of_what_was_chosen(jobs, variant):
    batches = jobs[1][0][variant]["keys"]
    for ranks in ranks_of(variant):
        shares = list(zip(*(job[variant]["keys"] for job in jobs[ranks]), strict=True))
        assert [sorted(key for share in shared for key in share) for shared in shares] == list(map(sorted, batches))
        assert all(max(map(len, shared)) - min(map(len, shared)) <= 2 for shared in shares)  # 1, and 1 unreadable


def test_every_rank_tells_the_same_of_what_waits(jobs):
    assert [job["share"]["waiting"] for job in jobs[3]] == [jobs[1][0]["share"]["waiting"]] * 3


def failures(workspace: str) -> list[str]:
    """What a rank raises where another one is at fault."""
    dist.init_process_group("gloo")
    told = []
    for settings in (
        {"read_options": ReadOptions(threads=1)},
        {"seed": dist.get_rank()},
        {"dp_rank": 0, "dp_world_size": 2},
    ):
        told.append(raised(workspace, model_of(""), BATCH, **settings))
    broken = model_of("")
    if dist.get_rank() == 1:
        nn.init.constant_(broken[1].weight, float("nan"))
    told += [raised(workspace, broken, BATCH), raised(workspace, model_of(""), 13)]
    dist.destroy_process_group()
    return told


def raised(workspace: str, model: nn.Module, batch_size: int, **settings: Any) -> str:
    try:
        for _ in OnlineSelector(model, batch_size=batch_size)(stream_of(workspace, **settings)):
            pass
    except RhostreamError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def test_what_one_rank_fails_at_ends_all_with_one_reason(told):
    first, second = told[-1]
    unreadable, other_seed, same_rank, nan, odd = zip(first, second, strict=True)
    assert sorted(text.split(":")[0] for text in unreadable) == ["OtherRankError", "ShardError"]
    assert all("sample s50 of shard" in text for text in unreadable)
    assert other_seed[0] == other_seed[1]
    assert "the candidates that were read (their keys, epoch or position) differ between rank 0 and rank 1" in first[1]
    assert same_rank[0] == same_rank[1]
    assert "of 2 data-parallel ranks the processes say that they are [0]" in first[2]
    assert nan[0].startswith("OtherRankError: rank 1 has failed (RhostreamError: after step 0: ")
    assert nan[1].startswith("RhostreamError: after step 0: 11 of 11 scores are not finite")
    assert odd[0] == odd[1]
    assert "batch_size 13 is not a multiple of the 2 ranks that share it out: give 12, or another multiple" in odd[0]
