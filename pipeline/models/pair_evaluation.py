"""Loss and retrieval of a two-tower model on pairs that it is not trained on."""

import math
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from rhostream.loaders.decode import ImageSpec, InputReader, ReadOptions, TextSpec, normalized_hash
from rhostream.loaders.index import Shard
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import Batch, EvaluationStream, model_inputs
from rhostream.pipeline.config import Precision
from rhostream.pipeline.models.costs import Costs
from rhostream.pipeline.models.device import autocast
from rhostream.pipeline.models.evaluation import Evaluation, evaluating
from rhostream.pipeline.models.retrieval import retrieval_recall
from rhostream.selection.tasks import PairEmbeddings, Pairs

_TOGETHER: Final = 256  # pairs whose loss is computed together


class PairEvaluationSet:
    """Pairs of some shards, held in memory as they were read: images uint8, and token ids.

    Args:
        at_most: upper bound on the number of pairs, chosen by a salted hash of their keys; None for all.
        threads: of decoding; 0 for one a core.
    """

    def __init__(
        self,
        workspace: Workspace,
        shards: tuple[Shard, ...],
        spec: ImageSpec,
        text_spec: TextSpec,
        *,
        task: Pairs,
        at_most: int | None = None,
        batch_size: int = 500,
        threads: int = 0,
    ) -> None:
        self.task, self.batch_size = task, batch_size
        self._specs = {"image": spec, "text": text_spec}
        options = ReadOptions(threads=threads, workers=0)
        self._samples = EvaluationStream(
            workspace, spec=spec, shards=shards, at_most=at_most, shard_by_rank=False, read_options=options
        )
        captions = self._samples.captions
        reader = InputReader(workspace, options)
        self._tokens = torch.from_numpy(reader.tokenize(captions, text_spec).result()[0])
        reader.close()
        # Equal captions are equally right.
        self._said = [normalized_hash(text) for text in captions]
        self._images: Tensor | None = None

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def guess(self) -> float:
        """The loss of likenesses that are all the same, at their best, nats."""
        n = min(_TOGETHER, len(self))
        if self.task.loss == "softmax" or n < 2:
            return math.log(n)
        return math.log(n) - (n - 1) * math.log1p(-1 / n)

    def evaluate(
        self,
        model: nn.Module,
        device: torch.device,
        precision: Precision = "float32",
        *,
        costs: Costs | None = None,
        cost: str = "evaluate",
    ) -> Evaluation:
        """Evaluate, as `EvaluationSet` does: the loss is the mean of the pairs' parts in that of batches of 256, nats.

        Captions are equal without regard to white space and case.

        Raises:
            ShardError: a sample does not decode.
        """
        costs = costs or Costs(device)
        if self._images is None:
            parts = [self._samples.stored(part) for part in self._parts()]
            self._images = torch.from_numpy(np.concatenate(parts))
        with evaluating(model), costs.charge(cost):
            found = [self._embed(model, part, device, precision, costs, cost) for part in self._parts()]
            whole = PairEmbeddings(
                images=torch.cat([each.images for each in found]),
                texts=torch.cat([each.texts for each in found]),
                scale=found[0].scale,
                bias=found[0].bias,
            )
            every = torch.arange(len(whole), device=whole.images.device)
            groups = [every[start : start + _TOGETHER] for start in range(0, len(whole), _TOGETHER)]
            losses = torch.cat([whole.take(group).losses(self.task.loss) for group in groups])
            recall = retrieval_recall(whole.images, whole.texts, self._said)
        accuracy = (recall["image_to_text_r10"] + recall["text_to_image_r10"]) / 2
        return Evaluation(loss=float(losses.double().mean()), accuracy=accuracy, samples=len(self), recall=recall)

    def close(self) -> None:
        """Let the reading threads and the images go."""
        self._samples.close()
        self._images = None

    def _parts(self) -> list[slice]:
        return [slice(start, start + self.batch_size) for start in range(0, len(self), self.batch_size)]

    def _embed(
        self, model: nn.Module, part: slice, device: torch.device, precision: Precision, costs: Costs, cost: str
    ) -> PairEmbeddings:
        assert self._images is not None, "`evaluate` has read them"
        stored = {"image": self._images[part].to(device), "text": self._tokens[part].to(device)}
        inputs = model_inputs(stored, self._specs)
        batch = Batch(fields=inputs, labels=torch.zeros(len(stored["text"]), dtype=torch.int64))
        shape = ("forward", *batch.shape, *batch.tokens["input_ids"].shape)
        with autocast(device, precision):
            outputs = costs.flops(cost, shape, partial(self.task.outputs, model, batch))
        return PairEmbeddings.of(outputs)
