"""RHO-1's loss of tokens: against a computation by hand, and on what it refuses."""

import math

import pytest
import torch

from rhostream import ConfigError, IrreducibleLossError, selective_token_loss, token_losses

# Two texts of four tokens, a vocabulary of two. Logits are chosen so that the losses are known: a logit d for token 1
# and 0 for token 0 gives the losses log(1 + e^-d) of token 1 and log(1 + e^d) of token 0.
LABELS = torch.tensor([[0, 1, 0, 1], [1, 1, 1, -100]])
RISES = torch.tensor([[0.0, 2.0, -1.0, 9.0], [3.0, 0.5, 7.0, 9.0]])
LOGITS = torch.stack([torch.zeros_like(RISES), RISES], dim=2)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


# Of tokens 2 to 4 by the logits at tokens 1 to 3; the last token of the second text is ignored.
BY_HAND = [[softplus(0.0), softplus(2.0), softplus(1.0)], [softplus(-3.0), softplus(-0.5), 0.0]]
REFERENCE = torch.tensor([[0.6, 0.2, 1.2], [0.01, 0.9, 0.0]])


def test_token_losses_are_those_of_a_computation_by_hand() -> None:
    assert token_losses(LOGITS, LABELS).tolist() == [pytest.approx(row) for row in BY_HAND]


def test_loss_is_the_mean_of_the_highest_excess() -> None:
    # Excess: 0.093, 1.927, 0.113; 0.039, -0.426. Of five tokens 0.4 are two, 0.41 are three.
    two = (BY_HAND[0][1] + BY_HAND[0][2]) / 2
    three = (BY_HAND[0][0] + BY_HAND[0][1] + BY_HAND[0][2]) / 3
    for share, expected in ((0.4, two), (0.41, three), (0.1, BY_HAND[0][1])):
        assert selective_token_loss(LOGITS, LABELS, REFERENCE, share=share).item() == pytest.approx(expected)


def test_a_share_that_is_whole_takes_no_token_more() -> None:
    logits = torch.randn(10, 11, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.arange(110).view(10, 11) % 5
    selective_token_loss(logits, labels, torch.zeros(10, 10), share=0.07).backward()  # 0.07 * 100 is a little above 7
    assert logits.grad is not None
    assert int(logits.grad.abs().sum(dim=2).gt(0).sum()) == 7


def test_all_tokens_give_the_usual_loss_and_its_gradient() -> None:
    grown = torch.randn(3, 6, 11, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.arange(18).view(3, 6) % 11
    usual = torch.nn.functional.cross_entropy(grown[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    ours = selective_token_loss(grown, labels, torch.zeros(3, 5), share=1.0)
    assert ours.item() == pytest.approx(usual.item())
    expected, found = (torch.autograd.grad(loss, grown)[0] for loss in (usual, ours))
    torch.testing.assert_close(found, expected)


def test_only_chosen_tokens_have_a_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    selective_token_loss(logits, LABELS, REFERENCE, share=0.4).backward()
    touched = logits.grad.abs().sum(2) > 0 if logits.grad is not None else None
    assert touched is not None
    assert touched.tolist() == [[False, True, True, False], [False, False, False, False]]


@pytest.mark.parametrize(
    ("labels", "reference", "share", "error", "said"),
    [
        (LABELS, REFERENCE, 0.0, ConfigError, "share 0.0"),
        (LABELS, REFERENCE[:, :2], 0.5, ConfigError, r"shape \(2, 2\), of the model \(2, 3\)"),
        (LABELS[:, :3], REFERENCE, 0.5, ConfigError, "labels of shape"),
        (torch.full((2, 4), -100), REFERENCE, 0.5, ConfigError, "ignored tokens alone"),
        (LABELS, REFERENCE + torch.tensor([math.nan, 0, 0]), 0.5, IrreducibleLossError, "NaN or infinite"),
    ],
)
def test_what_does_not_fit_is_refused(labels, reference, share, error, said) -> None:
    with pytest.raises(error, match=said):
        selective_token_loss(LOGITS, labels, reference, share=share)
