"""Scoring beside the training: the next super-batch is scored while the model takes its step on this one."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor, nn

from rhostream.errors import ConfigError
from rhostream.loaders.stream import Batch
from rhostream.selection.scoring.candidates import Scores
from rhostream.selection.scoring.scorer import Scorer, scoring_mode


class ShadowScorer(Scorer):
    """Scores with a copy of another scorer's model, whose weights are those of the last `follow`.

    Safe in a thread beside the training of that model: it touches neither the model nor torch's random generators.

    Raises:
        ConfigError: the model cannot be copied.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._followed = getattr(scorer.model, "_orig_mod", scorer.model)  # of a compiled one the module inside
        try:
            shadow = copy.deepcopy(self._followed)
        except Exception as error:  # modules refuse in every way there is
            raise ConfigError(
                f"score_ahead: {type(self._followed).__name__} cannot be copied ({error}): leave score_ahead out"
            ) from error
        super().__init__(shadow, scorer.options, task=scorer.task)

    @torch.no_grad()
    def follow(self) -> None:
        """Take over the weights and buffers as they are now."""
        for own, followed in zip(_tensors(self.model), _tensors(self._followed), strict=True):
            own.copy_(followed)

    def draws(self, batch: Batch | Tensor, k: int = 10) -> Tensor:
        raise ConfigError(
            "score_ahead with a selection function that draws (MC dropout): the training uses the same random "
            "generators meanwhile; leave score_ahead out"
        )

    @contextlib.contextmanager
    def _running(self, device: torch.device) -> Iterator[None]:
        with scoring_mode(self.model, self.options.batchnorm, keep_generators=False), self.autocast(device):
            yield


class BackgroundScoring:
    """Runs scoring passes in a thread, on a CUDA device in a stream of its own.

    Args:
        scorer: whose model is in training.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = ShadowScorer(scorer)
        self._device = next(self.scorer.model.parameters()).device
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rhostream-score")
        self._last: Future[Scores] | None = None

    def begin(self, work: Callable[[], Scores]) -> Callable[[], Scores]:
        """Begin `work`, which scores by `scorer`, under the weights of now; returns what waits for it.

        What `work` reads on a CUDA device has to live until then.
        """
        stream = self._stream
        self.wait()
        if stream is not None:  # a pass that nobody waited for reads the weights, too
            torch.cuda.current_stream(self._device).wait_stream(stream)
        self.scorer.follow()
        autocast = self.scorer.autocast(self._device)  # the caller's, who is another thread
        ready = torch.cuda.current_stream(self._device).record_event() if stream is not None else None

        def run() -> Scores:
            with torch.cuda.stream(stream), autocast:  # None is no stream
                if stream is not None and ready is not None:
                    stream.wait_event(ready)
                return work()

        scores = self._last = self._thread.submit(run)
        return partial(self._result, scores)

    def wait(self) -> None:
        """Until nothing is being scored; what failed is raised where its scores are wanted."""
        if self._last is not None:
            self._last.exception()

    def _result(self, scores: Future[Scores]) -> Scores:
        found = scores.result()
        if self._stream is not None:
            here = torch.cuda.current_stream(self._device)
            here.wait_stream(self._stream)
            scored, whole = found.scored, found.super_batch
            of_scored = () if scored is None else (scored.losses, scored.correct, scored.logits)
            pairs = None if scored is None else scored.pairs
            models = () if pairs is None else (pairs.learner, pairs.reference)
            embedded = [tensor for model in models if model is not None for tensor in vars(model).values()]
            for tensor in (found.score, whole.labels, whole.il, *of_scored, *embedded):
                if tensor is not None:  # its memory may be used again once this stream is done with it, too
                    tensor.record_stream(here)
        return found


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
