"""Scoring by a small model that is trained along with the learner (ClassAct: arXiv 2312.05328)."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from rhostream.errors import ConfigError
from rhostream.loaders.storage import Workspace
from rhostream.selection.companions.co_training import co_train
from rhostream.selection.scoring import Scorer, ScoringOptions, without_ddp
from rhostream.selection.selected_batch import SelectedBatch
from rhostream.selection.tasks import Classification, Task


class ProxyScorer(Scorer):
    """Logits of a small online proxy in the place of the learner's; the proxy is trained on the learner's batches.

    The score ℓ(proxy) − IL then compares two models of one capacity, and its cost is that of the small one:

        scorer = ProxyScorer(build_model("strided_cnn", 10, spec, seed=1), workspace, il="strided_cnn")
        for batch in OnlineSelector(model, scorer=scorer)(stream):
            ...                  # the learner's step
            scorer.update(batch) # the proxy's

    The IL table must come from the proxy's own architecture: with another one the scores mean nothing (their rank
    correlation with the right ones was measured at −0.05). In the ledger, `loss` and `correct` are the proxy's.

    Args:
        proxy: of the IL model's architecture and untrained, on the learner's device.
        workspace, il: name of the IL model, whose table the stream joins.
        options, task, seed: see `Scorer`; the proxy is trained on the pixels that it scores.
        learning_rate, weight_decay: of AdamW, its defaults.

    Raises:
        ConfigError: the IL model is of another architecture, or the table does not say which.
    """

    def __init__(
        self,
        proxy: nn.Module,
        workspace: Workspace | str,
        *,
        il: str,
        options: ScoringOptions = ScoringOptions(),
        task: Task = Classification(),
        seed: int = 0,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
    ) -> None:
        require_architecture(without_ddp(proxy), Workspace(workspace), il)
        super().__init__(proxy, options, task=task, seed=seed)
        self._proxy = proxy  # a DistributedDataParallel shares its gradients with the other ranks
        self._optimizer = torch.optim.AdamW(proxy.parameters(), lr=learning_rate, weight_decay=weight_decay)
        self._steps = 0

    def update(self, batch: SelectedBatch) -> None:
        """Train the proxy on the batch that the learner has got."""
        fields = self._prepared(replace(batch, fields=batch.scored_fields)).fields
        random = f"proxy/{self._seed}/{self._steps}"
        co_train(self._proxy, self._optimizer, self.task, fields, batch, random=random)
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must carry: the proxy, its optimizer and where its random numbers are."""
        return {
            **super().state_dict(),
            "proxy": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.model.load_state_dict(state["proxy"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._steps = state["steps"]


@dataclass(frozen=True, kw_only=True)
class _Weights:
    file: str


@dataclass(frozen=True, kw_only=True)
class _ModelCard:
    """What `il/<name>/model.json` tells of an architecture."""

    architecture: str
    models: tuple[_Weights, ...]


def require_architecture(proxy: nn.Module, workspace: Workspace, il: str) -> None:
    """Is the IL model of the proxy's architecture: parameters and buffers of the same names and shapes?

    Raises:
        ConfigError: it is not, or `il` is a Parquet file, which does not say.
    """
    corpus = f"il/{il}/model.json"
    if il.endswith(".parquet") or not workspace.exists(corpus):
        raise ConfigError(
            f"a proxy for IL table {il!r}: workspace {workspace.location!r} has no {corpus}, which would tell its "
            "architecture; name an IL model of the workspace"
        )
    model = workspace.read_record(corpus, _ModelCard)
    theirs = _shapes(workspace.read_safetensors(f"il/{il}/{model.models[0].file}"))
    ours = _shapes(proxy.state_dict())
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if differing:
        first = differing[0]
        raise ConfigError(
            f"the proxy is not of the architecture of IL model {il!r}, {model.architecture} ({len(differing)} "
            f"tensors differ: {first} is {ours.get(first, 'missing')}, there {theirs.get(first, 'missing')}): losses "
            f"of unlike models make no reducible loss; build the proxy as {model.architecture}"
        )


def _shapes(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
