"""What a run is charged: seconds where they were spent, operations as PyTorch counts them."""

import json
import resource
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rhostream import ConfigError
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.pipeline.models.costs import COST_NAMES, Costs, count_flops
from rhostream.pipeline.models.device import choose_device
from rhostream.pipeline.models.registry import build_model
from rhostream.schema import METRICS


class Clock:
    """Goes when it is told to: a real one also counts what other processes take of the machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("rhostream.pipeline.models.costs.time.perf_counter", lambda: self.now)

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_an_inner_charge_interrupts_the_outer_one(clock: Clock) -> None:
    costs = Costs()
    with costs.charge("evaluate"):
        clock.advance(2)
        with costs.charge("load"):
            clock.advance(8)
        clock.advance(1)
    clock.advance(16)
    assert costs.seconds["load"] == 8
    assert costs.seconds["evaluate"] == 3
    assert sum(costs.seconds.values()) == 11


def _burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_cpu_seconds_are_those_of_all_threads_not_of_sleep() -> None:
    costs = Costs()
    threads = [threading.Thread(target=_burn, args=(0.1,)) for _ in range(2)]
    before = resource.getrusage(resource.RUSAGE_SELF)
    with costs.charge("train"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert 0.2 <= costs.cpu_seconds["train"] <= used + 0.01
    with costs.charge("score"):
        time.sleep(0.1)
    assert costs.cpu_seconds["score"] < 0.05 < costs.seconds["score"]


@pytest.mark.slow
def test_cpu_seconds_of_children_are_charged_once() -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint(time.process_time(), flush=True); input()"
    costs = Costs(children="il_train")
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        used = float(child.stdout.readline())
        living = costs.metrics()["cpu_seconds_il_train"]
        child.communicate(b"\n")
    ended = costs.spent("il_train")["cpu_seconds"]
    assert living == pytest.approx(used, abs=0.05)  # the kernel tells them in hundredths
    assert living <= ended < used + 0.25
    assert costs.metrics()["cpu_seconds_load"] == 0


def test_the_share_of_the_il_model_replaces_the_one_before() -> None:
    costs = Costs()
    spent = {
        "seconds": {"il_train": 60.0, "il_score": 6.0},
        "cpu_seconds": {"il_train": 90.0, "il_score": 9.0},
        "flops": {"il_train": 6e9, "il_score": 0.0},
    }
    costs.charge_il(spent, 1)
    costs.charge_il(spent, 4)
    metrics = costs.metrics()
    assert {name: metrics[name] for name in metrics if "il_" in name} == {
        "seconds_il_train": 15.0,
        "seconds_il_score": 1.5,
        "cpu_seconds_il_train": 22.5,
        "cpu_seconds_il_score": 2.25,
        "flops_il_train": 1.5e9,
        "flops_il_score": 0.0,
        "il_runs": 4,
    }


def test_what_fails_is_charged_too(clock: Clock) -> None:
    costs = Costs()

    def fail() -> None:
        with costs.charge("train"):
            clock.advance(3)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    clock.advance(5)
    with costs.charge("score"):
        pass
    assert costs.seconds["train"] == 3
    assert costs.seconds["score"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bn_cnn", "mlp", "resnet18_cifar"])
def test_operations_equal_pytorchs_count_and_counting_changes_no_bit(name: str) -> None:
    model = build_model(name, 10, ImageSpec(size=16), seed=0).train()
    images = torch.randn(4, 3, 16, 16)

    def step() -> tuple[torch.Tensor, ...]:
        model.zero_grad()
        model(images).logsumexp(1).sum().backward()
        return tuple(parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None)

    plain = step()
    counted, flops = count_flops(step)
    with FlopCounterMode(display=False) as reference:
        step()
    assert flops == reference.get_total_flops() > 0
    assert all(torch.equal(a, b) for a, b in zip(plain, counted, strict=True))


def test_a_linear_layer_is_counted_in_inference_mode() -> None:
    layer = nn.Linear(8, 4)
    with torch.inference_mode():
        assert count_flops(lambda: layer(torch.zeros(2, 8)))[1] == 2 * 2 * 8 * 4


def test_fused_attention_in_eval_mode_counts_as_its_parts() -> None:
    attention, tokens = nn.MultiheadAttention(64, 4, batch_first=True), torch.randn(2, 5, 64)

    def forward() -> None:
        attention(tokens, tokens, tokens, need_weights=False)

    _, parts = count_flops(forward)
    attention.eval()
    with torch.inference_mode():
        _, whole = count_flops(forward)
    assert whole == parts == 2 * 2 * 5 * 64 * (4 * 64 + 2 * 5)


def test_later_calls_of_a_shape_cost_what_the_first_did() -> None:
    costs, layer, calls = Costs(), nn.Linear(8, 4), []

    def work(rows: int) -> torch.Tensor:
        calls.append(rows)
        result: torch.Tensor = layer(torch.zeros(rows, 8))
        return result

    for rows in (2, 2, 3):
        assert costs.flops("score", (rows, 8), lambda rows=rows: work(rows)).shape == (rows, 4)  # type: ignore[misc]
    assert calls == [2, 2, 3]
    assert costs.operations["score"] == (2 + 2 + 3) * 2 * 8 * 4


def test_the_state_is_plain_numbers_and_goes_on() -> None:
    costs = Costs()
    costs.add("il_train", seconds=2.5, cpu_seconds=3.5, flops=10)
    costs.il_runs = 3
    layer = nn.Linear(8, 4)
    costs.flops("train", (2, 8), lambda: layer(torch.zeros(2, 8)))
    restored = Costs()
    restored.load_state_dict(json.loads(json.dumps(costs.state_dict())))
    assert restored.metrics() == costs.metrics()
    assert set(restored.metrics()) <= set(METRICS.names)
    assert set(restored.seconds) == set(COST_NAMES)


@pytest.mark.slow
def test_counting_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch; from rhostream.pipeline.models.costs import count_flops; layer = torch.nn.Linear(2, 2)\n"
        "assert count_flops(lambda: layer(torch.zeros(1, 2)))[1] == 8; assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_missing_device_is_refused_with_the_remedy() -> None:
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"'cuda:1'.*--device cpu"):
        choose_device("cuda:1")
    with pytest.raises(ConfigError, match=r"'gpu'.*choose auto"):
        choose_device("gpu")
