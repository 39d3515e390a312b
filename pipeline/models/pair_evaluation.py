"""Loss and retrieval of a two-tower model on pairs that it is not trained on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

import torch
from torch import Tensor, nn

from rhostream.errors import ConfigError
from rhostream.loaders.decode import ImageSpec, InputReader, ReadOptions, TextSpec, normalized_hash
from rhostream.loaders.index import Shard
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import Batch, EvaluationStream, Exchange, model_inputs
from rhostream.pipeline.config import Precision
from rhostream.pipeline.models.costs import Costs
from rhostream.pipeline.models.device import autocast
from rhostream.pipeline.models.evaluation import Evaluation, evaluating
from rhostream.pipeline.models.pair_models import TwoTowers
from rhostream.pipeline.models.retrieval import class_embeddings, retrieval_recall, zero_shot_accuracy
from rhostream.selection.tasks import PairEmbeddings, Pairs

_TOGETHER: Final = 256  # pairs whose loss is computed together


@dataclass(frozen=True, kw_only=True)
class ZeroShot:
    """What images are classified by.

    Attributes:
        column: of `samples`, whose values are the classes; samples without one are left out.
        prompts: of each class, whose name takes the place of {}.
    """

    column: str
    prompts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Classes:
    """The classes of the samples, by the prompts.

    Attributes:
        labels: int64 (n,), -1 where a sample has no class.
        tokens: int32 (count * prompts, length), of the prompts of one class after the other.
    """

    count: int
    labels: Tensor
    tokens: Tensor


def _classes(zero_shot: ZeroShot, samples: EvaluationStream, reader: InputReader, spec: TextSpec) -> _Classes:
    """Raises ConfigError where the column is not there, or tells no two classes."""
    column = zero_shot.column
    if column not in samples.extra:
        raise ConfigError(
            f"zero_shot {column!r}: the samples have no such column; name one that the corpus keeps ([options] extra)"
        )
    told = [None if value is None or value != value else str(value) for value in samples.extra[column]]
    names = sorted({name for name in told if name})
    if len(names) < 2:
        raise ConfigError(f"zero_shot {column!r}: the samples to evaluate on have {len(names)} values there, need two")
    places = {name: place for place, name in enumerate(names)}
    said = [prompt.replace("{}", name) for name in names for prompt in zero_shot.prompts]
    return _Classes(
        count=len(names),
        labels=torch.tensor([places.get(name or "", -1) for name in told]),
        tokens=torch.from_numpy(reader.tokenize(said, spec).result()[0]),
    )


class PairEvaluationSet:
    """Pairs of some shards, held in memory as they were read: images uint8, and token ids. Processes share out the
    passes.

    Args:
        zero_shot: also classify the images by prompts.
        at_most: upper bound on the number of pairs, chosen by a salted hash of their keys; None for all.
        threads: of decoding; 0 for one a core.
        exchange: see `EvaluationSet`.
    """

    def __init__(
        self,
        workspace: Workspace,
        shards: Sequence[Shard],
        spec: ImageSpec,
        text_spec: TextSpec,
        *,
        task: Pairs,
        zero_shot: ZeroShot | None = None,
        at_most: int | None = None,
        batch_size: int = 500,
        threads: int = 0,
        exchange: Exchange | None = None,
    ) -> None:
        self.task, self._exchange = task, exchange or Exchange(alone=True)
        self._specs = {"image": spec, "text": text_spec}
        options = ReadOptions(threads=threads, workers=0)
        self._samples = EvaluationStream(
            workspace,
            spec=spec,
            shards=shards,
            at_most=at_most,
            extra=(zero_shot.column,) if zero_shot else (),
            shard_by_rank=False,
            read_options=options,
        )
        captions = self._samples.captions
        reader = InputReader(workspace, options)
        self._tokens = torch.from_numpy(reader.tokenize(captions, text_spec).result()[0])
        self._classes = None if zero_shot is None else _classes(zero_shot, self._samples, reader, text_spec)
        reader.close()
        # Equal captions are equally right.
        self._said = [normalized_hash(text) for text in captions]
        self.batch_size = min(batch_size, -(-len(self) // self._exchange.size))
        self._images: dict[int, Tensor] = {}  # of this process's parts, once they have been read

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
            OtherRankError: one of another process does not.
        """
        costs = costs or Costs(device)
        with evaluating(model), costs.charge(cost):
            embed = partial(self._embed, model, device=device, precision=precision, costs=costs, cost=cost)
            own = self._exchange.in_step(lambda: {number: embed(number) for number in self._own_parts()})
            found = self._of_all(own, device)
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
            zero_shot = self._zero_shot(model, whole.images, precision)
        accuracy = (recall["image_to_text_r10"] + recall["text_to_image_r10"]) / 2
        return Evaluation(
            loss=float(losses.double().mean()), accuracy=accuracy, samples=len(self), recall=recall, zero_shot=zero_shot
        )

    def _zero_shot(self, model: nn.Module, images: Tensor, precision: Precision) -> float | None:
        """Accuracy among the images whose class is known."""
        if self._classes is None:
            return None
        device, known = images.device, self._classes.labels >= 0
        tokens = model_inputs({"text": self._classes.tokens.to(device)}, self._specs)
        with autocast(device, precision):
            texts = cast(TwoTowers, model).encode_text(tokens)
        classes = class_embeddings(texts.view(self._classes.count, -1, texts.shape[1]))
        return zero_shot_accuracy(images[known.to(device)], classes, self._classes.labels[known].to(device))

    def close(self) -> None:
        """Let the reading threads and the images go."""
        self._samples.close()
        self._images = {}

    def _own_parts(self) -> range:
        """Numbers of the parts of `batch_size` pairs that this process embeds."""
        return range(self._exchange.rank, -(-len(self) // self.batch_size), self._exchange.size)

    def _of_all(self, own: Mapping[int, PairEmbeddings], device: torch.device) -> list[PairEmbeddings]:
        """What every process has embedded, in the order of the parts."""
        if self._exchange.size == 1:
            return list(own.values())
        told = {number: [tensor.cpu() for tensor in vars(part).values()] for number, part in own.items()}
        together = {number: part for of_process in self._exchange.objects(told) for number, part in of_process.items()}
        found = [[tensor.to(device) for tensor in together[number]] for number in sorted(together)]
        return [PairEmbeddings(images=i, texts=t, scale=scale, bias=bias) for i, t, scale, bias in found]

    def _embed(
        self, model: nn.Module, number: int, device: torch.device, precision: Precision, costs: Costs, cost: str
    ) -> PairEmbeddings:
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        if number not in self._images:
            self._images[number] = torch.from_numpy(self._samples.stored(part))
        stored = {"image": self._images[number].to(device), "text": self._tokens[part].to(device)}
        inputs = model_inputs(stored, self._specs)
        batch = Batch(fields=inputs, labels=torch.zeros(len(stored["text"]), dtype=torch.int64))
        shape = ("forward", *batch.shape, *batch.tokens["input_ids"].shape)
        with autocast(device, precision):
            outputs = costs.flops(cost, shape, partial(self.task.outputs, model, batch))
        return PairEmbeddings.of(outputs)
