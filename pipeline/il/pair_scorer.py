"""Scores one shard of image-text pairs with a reference model: their embeddings, and the own caption's rank."""

from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from rhostream.loaders.decode import ImageSpec, normalized_hash
from rhostream.loaders.index import CorpusMetadata, ShardRows
from rhostream.loaders.stream import Batch, EvaluationStream, model_inputs
from rhostream.pipeline.il.metadata import ILWeights
from rhostream.pipeline.il.scorer import ILScorer
from rhostream.pipeline.models import autocast
from rhostream.selection.tasks import PairEmbeddings, Pairs

#: Captions of the training split that every image is compared with.
COMPARED: Final = 1_000


class PairScorer(ILScorer):
    """The columns of `rhostream.schema.of_task(IL, "pairs")`.

    The captions that all are compared with are the same for every shard: those of the smallest hashes of their keys.
    """

    _others: tuple[Tensor, npt.NDArray[Any]] | None = None

    def _columns(self, weights: ILWeights, rows: ShardRows) -> dict[str, Any]:
        model = self._model(weights)
        if self._others is None:
            self._others = self._compared_with(model)
        texts, hashes = self._others
        assert rows.texts is not None, "the metadata's task is pairs"
        captions = rows.texts.to_pylist()
        every, size = np.arange(len(rows)), self._settings.batch_size
        parts = []
        for number, stored in enumerate(self._stored(rows, every)):
            some = captions[number * size : number * size + len(stored)]
            own = np.array([normalized_hash(text) for text in some])
            found = self._embed(model, torch.from_numpy(stored), some)
            parts.append(_of_pairs(found, texts, torch.from_numpy(hashes[None, :] == own[:, None]).to(self._device)))
        return {name: _joined([part[name] for part in parts]) for name in _NAMES}

    def _embed(self, model: nn.Module, images: Tensor, captions: list[str]) -> PairEmbeddings:
        metadata = self._metadata
        assert metadata.text_spec is not None, "the metadata's task is pairs"
        assert metadata.pairs is not None, "the same"
        tokens = torch.from_numpy(self._reader.tokenize(captions, metadata.text_spec).result()[0])
        stored = {"image": images.to(self._device), "text": tokens.to(self._device)}
        fields = model_inputs(stored, {"image": metadata.spec, "text": metadata.text_spec})
        batch = Batch(fields=fields, labels=torch.zeros(len(captions), dtype=torch.int64))
        shape = (*batch.shape, *batch.tokens["input_ids"].shape)
        task = Pairs(loss=metadata.pairs.loss)
        with autocast(self._device, self._settings.precision):
            return PairEmbeddings.of(self._costs.flops("il_score", shape, partial(task.outputs, model, batch)))

    def _compared_with(self, model: nn.Module) -> tuple[Tensor, npt.NDArray[Any]]:
        """Embeddings (m, D) of the captions, and the hashes of these."""
        spec = self._metadata.spec
        assert isinstance(spec, ImageSpec), "images of pairs"
        samples = EvaluationStream(
            self._workspace,
            spec=spec,
            shards=CorpusMetadata.read(self._workspace).split("train"),
            at_most=COMPARED,
            shard_by_rank=False,
        )
        parts = []
        for start in range(0, len(samples), self._settings.batch_size):
            part = slice(start, start + self._settings.batch_size)
            parts.append(self._embed(model, torch.from_numpy(samples.stored(part)), samples.captions[part]).texts)
        samples.close()
        return torch.cat(parts), np.array([normalized_hash(text) for text in samples.captions])


_NAMES: Final = ("il", "similarity", "rank", "compared", "image_embedding", "text_embedding")


def _of_pairs(found: PairEmbeddings, texts: Tensor, equal: Tensor) -> dict[str, Any]:
    """Columns of some pairs.

    Args:
        texts: (m, D), of the captions compared with.
        equal: bool (n, m), which of these are the own caption, and do not count.
    """
    similarity = (found.images * found.texts).sum(1)
    others = (found.images @ texts.T).masked_fill(equal, float("-inf"))
    # -ln of a softmax over the own caption and the others; a bias would fall out of it.
    likeness = found.scale * torch.cat([similarity[:, None], others], 1)
    return {
        "il": (likeness.logsumexp(1) - likeness[:, 0]).float().cpu().numpy(),
        "similarity": similarity.float().cpu().numpy(),
        "rank": (1 + (others >= similarity[:, None]).sum(1)).int().cpu().numpy(),
        "compared": (~equal).sum(1).int().cpu().numpy(),
        "image_embedding": found.images.half().cpu().numpy(),
        "text_embedding": found.texts.half().cpu().numpy(),
    }


def _joined(parts: list[npt.NDArray[Any]]) -> Any:
    whole = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if whole.ndim == 1:
        return whole
    ends = np.arange(len(whole) + 1, dtype=np.int32) * (whole.size // len(whole))
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(whole.reshape(-1)))
