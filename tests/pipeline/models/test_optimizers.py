"""Optimizers by name, and what they are told."""

import pytest
import torch
from torch import nn

from rhostream import ConfigError
from rhostream.pipeline.models.optimizers import clip_gradients, make_optimizer


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adam", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adamax", "Adadelta"])
def test_a_torch_optimizer_learns_by_its_name_in_any_case(name: str) -> None:
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(name.lower(), model, 0.1, 0.0)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert type(optimizer).__name__ == name
    assert not torch.equal(model.weight, before)


def test_sgd_takes_momentum_and_nesterov() -> None:
    optimizer = make_optimizer("SGD", nn.Linear(3, 1), 0.1, 0.5, {"momentum": 0.9, "nesterov": True})
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["momentum"], group["nesterov"]) == (0.1, 0.5, 0.9, True)


def test_zero_weight_decay_overrides_the_default_of_a_class() -> None:
    assert make_optimizer("AdamW", nn.Linear(3, 1), 0.1, 0.0).param_groups[0]["weight_decay"] == 0.0


@pytest.mark.parametrize(("norm", "left"), [(0.0, 5.0), (2.5, 2.5), (7.0, 5.0)])
def test_gradients_are_clipped_to_the_norm_of_all(norm: float, left: float) -> None:
    model = nn.Linear(1, 1)
    model.weight.grad, model.bias.grad = torch.tensor([[3.0]]), torch.tensor([4.0])
    clip_gradients(model, norm)
    assert model.weight.grad.item() == pytest.approx(3.0 * left / 5, rel=1e-5)
    assert model.bias.grad.item() == pytest.approx(4.0 * left / 5, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "decay", "options", "message"),
    [
        ("AdmW", 0.0, {}, "did you mean AdamW"),
        ("Newton", 0.0, {}, "known are .*AdamW.*SGD"),
        ("Optimizer", 0.0, {}, "base of the others"),
        ("LBFGS", 0.0, {}, "several times a step"),
        ("AdamW", 0.0, {"momentum": 0.9}, "AdamW takes no momentum"),
        ("Rprop", 0.1, {}, "Rprop takes no weight_decay"),
        ("SGD", 0.0, {"nesterov": True}, "Nesterov momentum requires a momentum"),
        ("Adam", 0.0, {"betas": [2.0, 0.9]}, "beta"),
    ],
)
def test_an_optimizers_unknown_setting_is_refused_in_one_line(
    name: str, decay: float, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make_optimizer(name, nn.Linear(3, 1), 0.1, decay, options)
    assert "\n" not in str(caught.value)
