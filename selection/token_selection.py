"""Selection of tokens rather than of samples: RHO-1's loss for causal language models (Lin et al., 2024)."""

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from rhostream.errors import ConfigError, IrreducibleLossError

IGNORED: Final = -100  # of labels: tokens that no loss is asked of, as in PyTorch and Hugging Face


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of each token given those before it, nats; 0 of tokens that are ignored.

    Args:
        logits: (n, T, vocabulary) of a causal language model, at every token those of the next one.
        labels: int64 (n, T), the tokens themselves; -100 for those to ignore, padding for instance.

    Returns:
        float32 (n, T - 1), of the tokens from the second on.

    Raises:
        ConfigError: shapes that do not fit.
    """
    if logits.dim() != 3 or labels.shape != logits.shape[:2] or labels.shape[1] < 2:
        raise ConfigError(
            f"logits of shape {tuple(logits.shape)} and labels of shape {tuple(labels.shape)}: give (n, tokens, "
            "vocabulary) and (n, tokens), of two tokens or more"
        )
    flat = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="none", ignore_index=IGNORED
    )
    return flat.view(labels.shape[0], -1)


def selective_token_loss(logits: Tensor, labels: Tensor, reference: Tensor, *, share: float) -> Tensor:
    """Selective language modeling (arXiv 2404.07965, eqs. 3 to 5): the mean loss of the tokens of the highest excess.

    The excess of a token is its loss under the model in training minus that under the reference model: `rho_loss`, of
    tokens. All tokens are read as context; only the chosen ones are trained on.

    Args:
        logits, labels: as of `token_losses`, of the model in training.
        reference: float32 (n, T - 1), nats: `token_losses` of the reference model on the same tokens, computed without
            gradients.
        share: of the batch's tokens that are trained on, in (0, 1]; of a fraction of a token the whole.

    Returns:
        Scalar, nats, to call `backward` on.

    Raises:
        ConfigError: shapes that do not fit, a share outside (0, 1], or no token but ignored ones.
        IrreducibleLossError: a reference loss that is NaN or infinite.
    """
    losses, told = token_losses(logits, labels), labels[:, 1:] != IGNORED
    if not 0 < share <= 1:
        raise ConfigError(f"share {share}: give a number above 0, and at most 1")
    if reference.shape != losses.shape:
        raise ConfigError(
            f"reference losses of shape {tuple(reference.shape)}, of the model {tuple(losses.shape)}: compute both by "
            "token_losses on the same tokens"
        )
    tokens = int(told.sum())
    if not tokens:
        raise ConfigError("labels of ignored tokens alone: leave such a batch out")
    excess = losses.detach()[told] - reference.to(losses)[told]
    if not bool(torch.isfinite(reference.to(losses.device)[told]).all()):
        raise IrreducibleLossError("a reference loss is NaN or infinite: see to the reference model")
    count = max(1, math.ceil(round(share * tokens, 6)))  # 0.07 * 100 is a little above 7
    chosen = excess.topk(count).indices
    return losses[told][chosen].mean()
