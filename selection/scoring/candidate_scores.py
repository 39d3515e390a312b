"""Scores of a super-batch: what the function needs of the model is computed, and no more."""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rhostream.errors import ConfigError, RhostreamError
from rhostream.loaders.stream import Batch, Exchange, Part, Ranks, SuperBatch
from rhostream.selection.scoring.cache import ScoreCache, Split
from rhostream.selection.scoring.candidates import ScoredCandidates, ScoredPairs, Scores
from rhostream.selection.scoring.even_chunks import in_even_chunks
from rhostream.selection.scoring.functions import SelectionFunction
from rhostream.selection.scoring.meter import Meter
from rhostream.selection.scoring.scorer import Scorer
from rhostream.selection.tasks import PairEmbeddings, Pairs, logits_of

#: What ranks tell one another of a candidate.
ROW: Final = np.dtype([("readable", "?"), ("correct", "?"), ("loss", "<f4"), ("il", "<f4"), ("score", "<f4")])


class CandidateScores:
    """Scores candidates by a selection function, charging the passes to `score`.

    Args:
        cache: re-uses losses of the last steps, for functions that read the loss alone; or None.
        exchange: tells the other ranks of a job what this one has found of its part.
    """

    def __init__(self, scorer: Scorer, cache: ScoreCache | None, meter: Meter, exchange: Exchange) -> None:
        self._scorer, self._cache, self._meter, self._exchange = scorer, cache, meter, exchange

    def score(self, super_batch: SuperBatch, function: SelectionFunction, step: int) -> Scores:
        """What is known of the candidates, those that other ranks have read included.

        Args:
            super_batch: on the model's device.
            step: gradient steps so far.

        Raises:
            ConfigError: the function needs irreducible losses, and the stream joins none.
            RhostreamError: a score is not finite.
            OtherRankError: another rank could not score its part.
        """
        self._require_kind(function)
        if super_batch.part is not None:
            if function.of_pairs:
                return self._pairs_shared_out(super_batch, super_batch.part, function, step)
            return self._shared_out(super_batch, super_batch.part, function, step)
        if function.score is None:
            return Scores(super_batch=super_batch)
        split = self._split(super_batch, function, step)
        scored, score = self._scored(super_batch, function, split)
        self._require_finite(score, function, step)
        if self._cache is not None and split is not None:
            keys = [super_batch.keys[position] for position in split.fresh.tolist()]
            self._cache.remember(keys, scored.loss[split.fresh.to(scored.loss.device)], step)
        return Scores(super_batch=super_batch, scored=scored, score=score)

    def _shared_out(self, super_batch: SuperBatch, part: Part, function: SelectionFunction, step: int) -> Scores:
        """Each rank scores its chunks, and learns what the others have found of theirs."""
        chunks = part.chunks
        known: list[ScoredCandidates] = []  # of this rank's chunks: what of them is known at all
        fresh = np.ones(len(part.whole), bool)
        remembers = self._cache is not None and function.loss_suffices
        if self._cache is not None and remembers:
            fresh[self._cache.split(part.whole.keys, step).known.numpy()] = False
        found = np.zeros(len(part.whole), ROW)

        def work() -> bytes:
            found["readable"][part.positions] = True
            if super_batch.il is not None:
                found["il"][part.positions] = super_batch.il.cpu().numpy()
            if function.score is not None:
                known.extend(self._scored_chunks(super_batch, part, function, step, found, fresh))
            return found[chunks.positions(part.rank)].tobytes()

        largest = chunks.passes * -(-chunks.candidates // chunks.count)
        ranks = Ranks(part.rank, chunks.ranks)
        told = self._exchange.together(ranks, work, largest * ROW.itemsize)
        for rank, rows in enumerate(told):
            positions = chunks.positions(rank)
            found[positions] = np.frombuffer(rows, ROW, len(positions))

        if function.score is not None:
            losses, correct = known[0].losses is not None, known[0].correct is not None
            new = fresh if remembers else None
            return self.told(super_batch, part, found, new, step, losses=losses, correct=correct)
        return self.told(super_batch, part, found)

    def _pairs_shared_out(self, super_batch: SuperBatch, part: Part, function: SelectionFunction, step: int) -> Scores:
        """Each rank embeds its chunks; what a pair is worth follows from the embeddings of all."""
        chunks, ranks = part.chunks, Ranks(part.rank, part.chunks.ranks)
        width, learner = 0, None
        embedded = torch.empty(0)  # float32 (m, 2 D) of the part's candidates, on the CPU

        def embed() -> bytes:
            nonlocal width, learner, embedded
            readable = np.zeros(len(part.whole), bool)
            readable[part.positions] = True
            if "pairs" in function.needs:
                for rows in part.passes():
                    batch = _at_least_two(super_batch, rows).normalized()
                    learner = self._embedded(batch)
                    found = torch.cat([learner.images, learner.texts], 1).cpu()
                    embedded = embedded if len(embedded) else torch.zeros(len(super_batch), found.shape[1])
                    embedded[torch.from_numpy(rows)] = found[: len(rows)]
                    width = found.shape[1]
            return width.to_bytes(4, "little") + readable[chunks.positions(part.rank)].tobytes()

        largest = chunks.passes * -(-chunks.candidates // chunks.count)
        is_readable = np.zeros(len(part.whole), bool)
        for rank, told in enumerate(self._exchange.together(ranks, embed, 4 + largest)):
            positions = chunks.positions(rank)
            is_readable[positions] = np.frombuffer(told[4:], bool, len(positions))
        readable = np.flatnonzero(is_readable)
        device = super_batch.labels.device
        whole = part.whole.without_unreadable(readable).to(device)
        if learner is not None:
            every = np.zeros((len(part.whole), width), np.float32)

            def tell() -> bytes:
                every[part.positions] = embedded.numpy()
                return every[chunks.positions(part.rank)].tobytes()

            for rank, told in enumerate(self._exchange.together(ranks, tell, largest * 4 * width)):
                positions = chunks.positions(rank)
                every[positions] = np.frombuffer(told, np.float32, len(positions) * width).reshape(-1, width)
            images, texts = torch.from_numpy(every[readable]).to(device).chunk(2, dim=1)
            learner = replace(learner, images=images, texts=texts)
        scored, score = self._scored_pairs(whole, function, learner)
        self._require_finite(score, function, step)
        return Scores(super_batch=whole, scored=scored, score=score, positions=readable)

    def _scored_pairs(
        self, super_batch: SuperBatch, function: SelectionFunction, learner: PairEmbeddings | None
    ) -> tuple[ScoredCandidates, Tensor]:
        """What is known of all candidates of a super-batch of pairs, and their scores.

        Args:
            learner: what the model in training makes of them.
        """
        task, reference = self._scorer.task, super_batch.reference
        assert isinstance(task, Pairs), "`_require_kind` sees to it"
        assert function.score is not None
        if "reference" in function.needs and reference is None:
            raise ConfigError(
                f"selection function {function.name!r} needs the embeddings of a reference model, and the stream joins "
                "none: name its table, CandidateStream(…, il=…), or use hard_learner"
            )
        if "reference" in function.needs and reference is not None and reference.loss != task.loss:
            raise ConfigError(
                f"the reference model was trained with the {reference.loss} loss, and the learner with the {task.loss} "
                f"loss, of which no difference can be taken: give task=Pairs(loss={reference.loss!r}), or train a "
                "reference with the learner's loss"
            )
        pairs = ScoredPairs(loss=task.loss, learner=learner, reference=PairEmbeddings.of_reference(super_batch))
        scored = ScoredCandidates(
            labels=super_batch.labels,
            il=super_batch.il,
            losses=None if learner is None else learner.losses(task.loss),
            correct=None if learner is None else learner.finds_own(),
            pairs=pairs,
        )
        return scored, function.score(scored)

    def told(
        self,
        super_batch: SuperBatch,
        part: Part,
        found: npt.NDArray[np.void],
        fresh: npt.NDArray[np.bool_] | None = None,
        step: int = 0,
        *,
        losses: bool | None = None,
        correct: bool = False,
    ) -> Scores:
        """What other ranks, and this one, have found of the candidates of the whole.

        Args:
            found: rows of `ROW`.
            fresh: bool (n,), whose losses the cache is to remember.
            losses, correct: are these known? None where nothing was scored.
        """
        device = super_batch.labels.device
        readable = np.flatnonzero(found["readable"])
        whole = part.whole.without_unreadable(readable)
        if super_batch.il is not None:
            whole = replace(whole, il=torch.from_numpy(found["il"][readable]))
        whole = whole.to(device)
        if losses is None:
            return Scores(super_batch=whole, positions=readable)

        def column(name: str) -> Tensor:
            return torch.from_numpy(found[name][readable]).to(device)

        scored = ScoredCandidates(
            labels=whole.labels,
            il=whole.il,
            losses=column("loss") if losses else None,
            correct=column("correct") if correct else None,
        )
        if self._cache is not None and fresh is not None:
            new = readable[fresh[readable]]
            keys = [part.whole.keys[position] for position in new]
            self._cache.remember(keys, torch.from_numpy(found["loss"][new]), step)
        return Scores(super_batch=whole, scored=scored, score=column("score"), positions=readable)

    def _scored_chunks(
        self,
        super_batch: SuperBatch,
        part: Part,
        function: SelectionFunction,
        step: int,
        found: npt.NDArray[np.void],
        fresh: npt.NDArray[np.bool_],
    ) -> list[ScoredCandidates]:
        """Run this rank's passes, as many as every rank runs, and note in `found` what they give.

        Args:
            fresh: bool (n,), which candidates of the whole have no remembered loss.
        """
        known, first_draw = [], self._scorer.draw_calls
        chunks, every = part.chunks, range(part.chunks.ranks)
        # Where the model's parameters are shared out, a pass of one rank is a pass of all.
        busy = [
            any(fresh[chunks.scored_by(rank)[turn] :: chunks.count].any() for rank in every)
            for turn in range(chunks.passes)
        ]
        for turn, rows in enumerate(part.passes()):
            self._scorer.draw_calls = first_draw + chunks.scored_by(part.rank)[turn]
            chunk = _at_least_two(super_batch, rows)
            split = self._split(chunk, function, step)
            scored, score = self._scored(chunk, function, split, passes=busy[turn])
            score = score[: len(rows)]
            self._require_finite(score, function, step)
            positions = part.positions[rows]
            found["score"][positions] = score.cpu().numpy()
            for name, values in (("loss", scored.losses), ("correct", scored.correct)):
                if values is not None:
                    found[name][positions] = values[: len(rows)].cpu().numpy()
            known.append(scored)
        self._scorer.draw_calls = first_draw + chunks.count if "draws" in function.needs else first_draw
        return known

    def _split(self, super_batch: SuperBatch, function: SelectionFunction, step: int) -> Split | None:
        """Which candidates need a scoring pass; None where none is remembered, and all do."""
        if self._cache is None or not function.loss_suffices or not len(super_batch.keys):
            return None
        return self._cache.split(super_batch.keys, step)

    def _scored(
        self, super_batch: SuperBatch, function: SelectionFunction, split: Split | None, *, passes: bool = False
    ) -> tuple[ScoredCandidates, Tensor]:
        """What is known of candidates that are scored in one pass, and their scores.

        Args:
            passes: run the pass for the other ranks' sake, even where the cache knows all losses.
        """
        assert function.score is not None
        if function.of_pairs:
            asks = "pairs" in function.needs
            return self._scored_pairs(super_batch, function, self._embedded(super_batch.normalized()) if asks else None)
        self._require(function, super_batch)
        task = self._scorer.task
        scored = ScoredCandidates(labels=super_batch.labels, il=super_batch.il)
        if split is not None:
            scored = replace(scored, losses=self._losses(super_batch, split, passes=passes))
        elif function.needs - {"il"}:
            batch = super_batch.normalized()
            if "logits" in function.needs:
                outputs = self._metered("outputs", batch)
                scored = replace(
                    scored,
                    losses=task.losses(outputs, batch),
                    correct=task.correct(outputs, batch),
                    logits=logits_of(outputs) if task.gives_logits else None,
                )
            if "draws" in function.needs:
                scored = replace(scored, draws=self._metered("draws", batch))
        return scored, function.score(scored)

    @staticmethod
    def _require_finite(score: Tensor, function: SelectionFunction, step: int) -> None:
        finite = int(torch.isfinite(score).sum())
        if finite < len(score):
            raise RhostreamError(
                f"after step {step}: {len(score) - finite} of {len(score)} scores are not finite "
                f"({function.name}): the training has diverged; lower the learning rate, or train in float32"
            )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must carry: tensors and plain values."""
        return {"scorer": self._scorer.state_dict(), "cache": self._cache.state_dict() if self._cache else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scorer.load_state_dict(state["scorer"])
        if self._cache is not None and state["cache"] is not None:
            self._cache.load_state_dict(state["cache"])

    def _losses(self, super_batch: SuperBatch, split: Split, *, passes: bool) -> Tensor:
        """Losses of all candidates, those of recent steps from the cache."""
        fresh = torch.empty(0, device=super_batch.labels.device)
        if len(split.fresh):
            batch = super_batch.take(split.fresh.numpy()).normalized()
            fresh = self._scorer.task.losses(self._metered("outputs", batch), batch)
        elif passes:
            self._metered("outputs", super_batch.normalized())
        return split.merged(fresh)

    def _require_kind(self, function: SelectionFunction) -> None:
        """Raises ConfigError for a function of pairs where there are none, and for another one where there are."""
        is_pairs = isinstance(self._scorer.task, Pairs)
        if function.of_pairs and not is_pairs:
            raise ConfigError(
                f"selection function {function.name!r} scores image-text pairs: give task=Pairs(), or use rho_loss"
            )
        if is_pairs and function.score is not None and not function.of_pairs:
            raise ConfigError(
                f"selection function {function.name!r} scores each candidate by itself, and the loss of a pair depends "
                "on its batch: use learnability, jest, drrho, easy_reference, hard_learner or uniform"
            )

    def _require(self, function: SelectionFunction, super_batch: SuperBatch) -> None:
        """Raises ConfigError where the stream or the task does not give what the function needs."""
        if "il" in function.needs and super_batch.il is None:
            raise ConfigError(
                f"selection function {function.name!r} needs irreducible losses, and the stream joins "
                'none: name an IL table, CandidateStream(…, il="strided_cnn")'
            )
        task = self._scorer.task
        if function.reads_logits and not task.gives_logits:
            own = " with a criterion of its own" if task.criterion is not None else ""
            raise ConfigError(
                f"selection function {function.name!r} reads logits over classes, which the task {type(task).__name__}"
                f"{own} does not give: use one that reads the loss alone (rho_loss, train_loss; one of your own is "
                "registered with loss_suffices=True)"
            )

    def _embedded(self, batch: SuperBatch) -> PairEmbeddings:
        """What the model makes of pairs, without a gradient: its bias may be the parameter itself."""
        return PairEmbeddings.of(self._metered("outputs", batch)).detach()

    def _metered(self, what: str, batch: SuperBatch) -> Any:
        work = self._scorer.outputs if what == "outputs" else self._scorer.draws

        def metered(part: Batch) -> Any:
            shapes = tuple(tuple(field.shape) for field in part.fields.values())
            return self._meter.flops("score", (what, *shapes), lambda: work(part))

        # What is not logits need not be rows of samples, which can be put together again.
        if what == "outputs" and self._scorer.task.gives_rows:
            return in_even_chunks(metered, batch)
        return metered(batch)


def _at_least_two(super_batch: SuperBatch, rows: npt.NDArray[np.int64]) -> SuperBatch:
    """These rows, and fillers where there are less than two: BatchNorm has no statistics of less."""
    if len(rows) == 1:
        return super_batch.take(np.repeat(rows, 2))
    if len(rows):
        return super_batch.take(rows)

    def blank(tensor: Tensor) -> Tensor:
        return tensor.new_zeros(2, *tensor.shape[1:])

    fields = {name: blank(field) for name, field in super_batch.fields.items()}
    il = None if super_batch.il is None else blank(super_batch.il)
    return replace(super_batch.take(rows), fields=fields, labels=blank(super_batch.labels), il=il)
