"""Which of the scored candidates are trained on: one choice for all ranks."""

import hashlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.loaders.stream import Exchange, Ranks, SuperBatch
from rhostream.selection.policies import SelectionConfig
from rhostream.selection.rules import Chosen, Joint, Rule, unweighted
from rhostream.selection.scoring import Scores

#: What the first rank tells the others of each that it has chosen.
_CHOSEN: Final = np.dtype([("position", "<i8"), ("weight", "<f4")])


class Choosing:
    """Chooses by the rule of each selection, whose draws are a function of the seed and the super-batch.

    Args:
        exchange: of the ranks that choose.
    """

    def __init__(self, exchange: Exchange, seed: int) -> None:
        self._exchange, self._seed = exchange, seed
        self._rules: dict[SelectionConfig, Rule] = {}
        self._states: dict[str, Any] = {}  # of rules that are not made yet

    def state_dict(self) -> dict[str, Any]:
        """Of the rules, by the label of their selection."""
        return self._states | {chosen.label: rule.state_dict() for chosen, rule in self._rules.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rules, self._states = {}, dict(state)

    def choose(self, found: Scores, selection: SelectionConfig, ranks: Ranks, device: torch.device) -> Chosen:
        """The n_b highest, by the rule `rhostream.selection.rules.top.Top`, unless the selection has another rule.

        Raises:
            ConfigError: n_b exceeds the super-batch, or a floor is of clusters that the stream does not join.
        """
        super_batch, score = found.super_batch, found.score
        if selection.batch_size > super_batch.size and not selection.queues:
            raise ConfigError(
                f"batch_size {selection.batch_size} exceeds the {super_batch.size} candidates of a super-batch, which "
                "leaves nothing to choose: give the selector a smaller batch_size, or the stream a larger "
                "super_batch_size, if the corpus has as many samples"
            )
        if selection.scores and selection.takes_all and selection.batch_size != super_batch.size:
            raise ConfigError(
                f"batch_size {selection.batch_size} of {super_batch.size} candidates with the rule weighted, which "
                "trains on all of them: give the stream as large a super_batch_size as the selector's batch_size"
            )
        quota = selection.quota(super_batch.candidate_count, super_batch.size)
        if score is None:
            return unweighted(torch.arange(min(quota, len(super_batch)), device=device))
        rule = self._rule(selection)
        # A function of the super-batch, so that there is nothing to restore, whatever the number of ranks.
        seed = hashlib.blake2b(f"{self._seed}/{super_batch.epoch}/{super_batch.keys[0]}".encode(), digest_size=8)
        random = torch.Generator().manual_seed(int.from_bytes(seed.digest()) >> 1)
        labels = _clusters_of(super_batch) if selection.cluster_floor else super_batch.labels
        if found.scored is None or found.scored.pairs is None:
            return rule.choose(score, labels, quota, random)
        scored, together = found.scored, selection.chosen_by.together

        def choose() -> Chosen:
            if isinstance(rule, Joint) and together is not None:
                return rule.choose_pairs(together(scored), quota, random)
            return rule.choose(score, labels, quota, random)

        chosen = self._of_the_first(choose, min(quota, len(score)), ranks)
        return Chosen(chosen.positions.to(device), chosen.weights.to(device))

    def _of_the_first(self, choose: Callable[[], Chosen], at_most: int, ranks: Ranks) -> Chosen:
        """What the first rank chooses, told to all: products of embeddings round otherwise elsewhere.

        Args:
            choose: gives at most `at_most` candidates.
        """
        if ranks.size == 1:
            return choose()

        def told() -> bytes:
            rows = np.zeros(at_most, _CHOSEN)
            rows["position"] = -1
            if not ranks.rank:
                chosen = choose()
                rows["position"][: len(chosen)] = chosen.positions.cpu().numpy()
                rows["weight"][: len(chosen)] = chosen.weights.cpu().numpy()
            return rows.tobytes()

        rows = np.frombuffer(self._exchange.together(ranks, told, _CHOSEN.itemsize * at_most)[0], _CHOSEN)
        rows = rows[rows["position"] >= 0]
        return Chosen(torch.from_numpy(rows["position"].copy()), torch.from_numpy(rows["weight"].copy()))

    def _rule(self, selection: SelectionConfig) -> Rule:
        if selection not in self._rules:
            rule = self._rules[selection] = selection.make_rule()
            if selection.label in self._states:
                rule.load_state_dict(self._states.pop(selection.label))
        return self._rules[selection]


def _clusters_of(super_batch: SuperBatch) -> Tensor:
    """int64 (n,)."""
    clusters = super_batch.extra.get("cluster")
    if clusters is None:
        raise ConfigError("a cluster floor needs the candidates' clusters: give the stream their name, clusters=…")
    return torch.from_numpy(clusters.astype(np.int64)).to(super_batch.labels.device)
