"""A process that streams is killed at random moments, and others go on from what it last reported."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from helpers.killable import KILLS
from helpers.tiny import write_il, write_workspace
from torch.utils.data import DataLoader

from rhostream.loaders import CandidateStream, Order, ReadOptions

ROWS = (37, 50, 41, 60, 22, 45)
EPOCHS = 2 + KILLS // 5  # long enough to be killed so often


def follow(workspace: str, report: Path, state: dict[str, Any] | None, workers: int) -> None:
    """Stream up to the end of the last epoch, and report every super-batch with the state after it."""
    stream = CandidateStream(
        workspace,
        il="strided_cnn",
        super_batch_size=10,
        seed=3,
        order=Order(block_shards=2, last="keep"),
        read_options=ReadOptions(threads=1),
    )
    if state:
        stream.load_state_dict(state)
    with report.open("a") as lines:
        while (epoch := stream.state_dict()["epoch"]) < EPOCHS:
            for batch in DataLoader(stream, batch_size=None, num_workers=workers) if workers else stream:
                lines.write(json.dumps({"epoch": batch.epoch, "keys": batch.keys, "state": batch.state}) + "\n")
                lines.flush()
                time.sleep(0.005)
            stream.set_epoch(epoch + 1)


def test_a_resume_with_other_workers_repeats_and_misses_no_sample(tmp_path):
    workspace = write_workspace(tmp_path / "w", ROWS)
    write_il(workspace)
    report = tmp_path / "report.jsonl"
    report.touch()
    moments = random.Random(0)
    fork = multiprocessing.get_context("fork")
    kills = 0
    while True:
        # What the killed process had begun to write is not reported: that super-batch is given out again.
        whole = [line for line in report.read_text().splitlines(keepends=True) if line.endswith("\n")]
        report.write_text("".join(whole))
        done = [json.loads(line) for line in whole]
        state = done[-1]["state"] if done else None
        process = fork.Process(target=follow, args=(str(tmp_path / "w"), report, state, moments.choice((0, 0, 1, 3))))
        process.start()
        if kills < KILLS:
            # From before its first super-batch to some way into the epoch.
            deadline = time.monotonic() + 30
            after = report.stat().st_size + moments.choice((0, 1, 400, 1600))
            while report.stat().st_size < after and process.is_alive() and time.monotonic() < deadline:
                time.sleep(0.001)
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()  # with a timeout it would also wait for the workers of the killed
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    done = [json.loads(line) for line in report.read_text().splitlines()]
    expected = sorted(f"s{number}" for number in range(sum(ROWS)))
    for epoch in range(EPOCHS):
        assert sorted(key for line in done if line["epoch"] == epoch for key in line["keys"]) == expected
    uninterrupted = CandidateStream(workspace, super_batch_size=10, seed=3, order=Order(block_shards=2, last="keep"))
    assert [line["keys"] for line in done] == [batch.keys for _ in range(EPOCHS) for batch in uninterrupted]
    assert kills == KILLS
