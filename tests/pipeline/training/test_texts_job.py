"""`rho train` on texts in several processes: the ledger of one."""

import pytest
from helpers.ranks import on_jobs
from helpers.texts import write_texts

from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig, TokenizeConfig, TrainConfig
from rhostream.pipeline.il import score_il, train_il
from rhostream.pipeline.sql import query
from rhostream.pipeline.tokens import write_tokens
from rhostream.pipeline.training import train

pytestmark = pytest.mark.slow


def job(workspace, name):
    """The metrics of a run whose model has no dropout, so that any number of processes trains the same."""
    config = TrainConfig(
        name=name, model="bag_of_ngrams", select="rho_loss", batch_size=6, super_batch_size=24, score_chunk=6, steps=12,
        evaluate_every=6, device="cpu", threads=1, workers="0", schedule="constant", tensorboard=False,
    )  # fmt: skip
    return train(Workspace(workspace), config).metrics


def ledger(workspace, name):
    sql = f"SELECT step, key, selected FROM ledger WHERE run = '{name}' ORDER BY step, key"
    return query(workspace, sql).to_pylist()


def test_ranks_choose_the_texts_that_one_process_chooses(tmp_path):
    raw, stored = (write_texts(tmp_path / name, 200, wrong=0.2, test_rows=40) for name in ("raw", "stored"))
    for workspace in (raw, stored):
        train_il(workspace, ILTrainConfig(model="bag_of_ngrams", steps=20, device="cpu"))
        score_il(workspace, ILScoreConfig(device="cpu"))
    write_tokens(stored, TokenizeConfig(workers=0))
    jobs = on_jobs(
        "pipeline.training.test_texts_job",
        [(2, "job", [raw.location, "two"]), (2, "job", [stored.location, "two"])],
    )
    for workspace, (first, _) in zip((raw, stored), jobs, strict=True):
        alone = job(workspace.location, "one")
        assert ledger(workspace, "two") == ledger(workspace, "one")
        for of_ranks, of_one in zip(first, alone, strict=True):
            for name in ("candidates", "selected", "train_loss", "test_loss", "test_accuracy", "test_mcc"):
                assert of_ranks[name] == pytest.approx(of_one[name], rel=1e-3), name
