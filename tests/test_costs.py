"""What a run is charged: seconds where they were spent, operations as PyTorch counts them."""

import json
import subprocess
import sys
import time

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rhostream import ConfigError
from rhostream.loaders.view import View
from rhostream.pipeline.costs import COST_NAMES, Costs, count_flops
from rhostream.pipeline.device import choose_device
from rhostream.pipeline.models import build_model
from rhostream.schema import METRICS


def test_an_inner_charge_interrupts_the_outer_one() -> None:
    costs = Costs()
    with costs.charge("evaluate"):
        time.sleep(0.02)
        with costs.charge("load"):
            time.sleep(0.08)
    assert costs.seconds["load"] >= 0.08
    assert 0.02 <= costs.seconds["evaluate"] < 0.08


def test_what_fails_is_charged_too() -> None:
    costs = Costs()

    def fail() -> None:
        with costs.charge("train"):
            time.sleep(0.01)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    with costs.charge("score"):
        pass
    assert costs.seconds["train"] >= 0.01
    assert costs.seconds["score"] < 0.01


@pytest.mark.parametrize("name", ["bn_cnn", "mlp", "resnet18_cifar"])
def test_operations_are_those_of_pytorchs_counter_and_counting_changes_no_bit(name: str) -> None:
    model = build_model(name, 10, View(size=16), seed=0).train()
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


def test_later_calls_of_a_shape_are_charged_what_the_first_one_took() -> None:
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
    costs.add("il_train", seconds=2.5, flops=10)
    layer = nn.Linear(8, 4)
    costs.flops("train", (2, 8), lambda: layer(torch.zeros(2, 8)))
    restored = Costs()
    restored.load_state_dict(json.loads(json.dumps(costs.state_dict())))
    assert restored.metrics() == costs.metrics()
    assert set(restored.metrics()) <= set(METRICS.names)
    assert set(restored.seconds) == set(COST_NAMES)


def test_counting_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch; from rhostream.pipeline.costs import count_flops; layer = torch.nn.Linear(2, 2)\n"
        "assert count_flops(lambda: layer(torch.zeros(1, 2)))[1] == 8; assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_device_that_is_not_there_is_refused_with_the_remedy() -> None:
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"'cuda:1'.*--device cpu"):
        choose_device("cuda:1")
    with pytest.raises(ConfigError, match=r"'gpu'.*choose auto"):
        choose_device("gpu")
