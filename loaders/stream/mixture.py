"""Several corpora as one stream, mixed with weights."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from rhostream.errors import ConfigError
from rhostream.loaders.decode import ReadOptions, StoredRefs
from rhostream.loaders.stream.candidate_reader import Candidates
from rhostream.loaders.stream.candidate_stream import CandidateStream
from rhostream.loaders.stream.candidate_table import CandidateTable
from rhostream.loaders.stream.order import Order, shuffled
from rhostream.loaders.stream.ranks import given_ranks
from rhostream.loaders.stream.super_batch_stream import SuperBatchStream

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_LARGEST_DENOMINATOR = 10**6  # of a weight, so that every position is exact


class MixedStream(SuperBatchStream):
    """Super-batches whose candidates come from several corpora, in fixed shares.

    Of any first p candidates of an epoch each corpus has given its share of p, to within the number of corpora. Each
    corpus follows its own order, one of its epochs after the other: with the default weights every sample of every
    corpus comes once an epoch; a corpus of a larger weight repeats. All that holds for `CandidateStream` holds here.

    Args:
        corpora: the streams to mix, by name; of their settings, shards, IL tables, thumbnails, prefilters and block
            size are used. Their classes, specs and augmentations must agree. Shards are named "<name>/<shard>".
        weights: share of each corpus, in any unit; by default in proportion to their samples.
        samples: length of an epoch; by default the sum of the corpora's.
        dp_rank, dp_world_size, mesh: as of `CandidateStream`; those of the corpora do not count.

    Raises:
        ConfigError: the corpora cannot be mixed.
    """

    def __init__(
        self,
        corpora: Mapping[str, CandidateStream],
        *,
        weights: Mapping[str, float] | None = None,
        samples: int | None = None,
        super_batch_size: int = 320,
        seed: int = 0,
        order: Order = Order(),
        read_options: ReadOptions = ReadOptions(),
        dp_rank: int | None = None,
        dp_world_size: int | None = None,
        mesh: "DeviceMesh | None" = None,
    ) -> None:
        _require_alike(corpora)
        self.corpora = dict(corpora)
        sizes = {name: stream.samples for name, stream in corpora.items()}
        shares = dict(weights) if weights is not None else sizes
        if set(shares) != set(corpora) or not all(0 < share < math.inf for share in shares.values()):
            raise ConfigError(f"weights {shares}: give each of the corpora {sorted(corpora)} a number above 0")
        most = Fraction(max(shares.values()))
        exact = [(Fraction(shares[name]) / most).limit_denominator(_LARGEST_DENOMINATOR) for name in corpora]
        if not all(exact):
            raise ConfigError(f"weights {shares}: the smallest is less than a millionth of the largest; leave it out")
        # Of what the corpora before it have left, the share that each one takes.
        self._takes = [share / sum(exact[number:]) for number, share in enumerate(exact)]
        self._samples = sum(sizes.values()) if samples is None else samples
        first = next(iter(corpora.values()))
        self.corpus = first.corpus
        super().__init__(
            workspace=first.workspace,
            super_batch_size=super_batch_size,
            seed=seed,
            spec=first.spec,
            scoring_spec=first.scoring_spec,
            text_spec=first.text_spec,
            augmentation=first.augmentation,
            order=order,
            read_options=read_options,
            ranks=given_ranks(dp_rank, dp_world_size, mesh),
        )
        made_of = [
            [name, str(take), stream.order_digest, stream.seed]
            for (name, stream), take in zip(corpora.items(), self._takes, strict=True)
        ]
        self._order_digest = hashlib.sha256(json.dumps([self._samples, *made_of]).encode()).hexdigest()[:16]

    @property
    def samples(self) -> int:
        """Candidates of an epoch, over all ranks."""
        return self._samples

    @property
    def order_digest(self) -> str:
        """Identifies the corpora, their weights and orders."""
        return self._order_digest

    def read(self, epoch: int, first: int, last: int, *, prefiltering: bool = True) -> Candidates:
        begin, end, whole = self._given(first), self._given(last), self._given(self._samples)
        parts = []
        for number, (name, stream) in enumerate(self.corpora.items()):
            position = epoch * whole[number] + begin[number]
            stop = epoch * whole[number] + end[number]
            while position < stop:
                own_epoch, start = divmod(position, stream.samples)
                count = min(stop - position, stream.samples - start)
                own = stream.parts(own_epoch, start, start + count, prefiltering=prefiltering)
                parts += [(_named(to_read, name, stream), _named(passed, name, stream)) for to_read, passed in own]
                position += count
        to_read, passed_over = (CandidateTable.concat(tables) for tables in zip(*parts, strict=True))
        return to_read.take(shuffled(len(to_read), self.seed, epoch, first)), passed_over

    def _given(self, position: int) -> list[int]:
        """How many of the first `position` candidates of an epoch each corpus gives."""
        counts, left = [], position
        for take in self._takes:
            counts.append(int(left * take))
            left -= counts[-1]
        return counts


def _named(part: CandidateTable, name: str, stream: CandidateStream) -> CandidateTable:
    """With shard names that tell the corpus, and tars that are found from another workspace."""
    return replace(
        part,
        shards=[f"{name}/{shard}" for shard in part.shards],
        refs={field: _absolute(refs, stream) for field, refs in part.refs.items()},
    )


def _absolute(refs: StoredRefs, stream: CandidateStream) -> StoredRefs:
    return replace(refs, tars=[stream.workspace.path(tar) for tar in refs.tars])


def _require_alike(corpora: Mapping[str, CandidateStream]) -> None:
    if not corpora:
        raise ConfigError("a mixture needs at least one corpus")
    (first_name, first), *others = corpora.items()
    for name, stream in others:
        for what, one, other in (
            ("task", first.corpus.task, stream.corpus.task),
            ("classes", first.corpus.classes, stream.corpus.classes),
            ("spec", first.spec, stream.spec),
            ("scoring spec", first.scoring_spec, stream.scoring_spec),
            ("text spec", first.text_spec, stream.text_spec),
            ("loss of the reference table", first.reference, stream.reference),
            ("thumbnails", first.thumbnails is None, stream.thumbnails is None),
            ("augmentation", first.augmentation, stream.augmentation),
            ("IL table", first.joins_il, stream.joins_il),
        ):
            if one != other:
                raise ConfigError(
                    f"corpora {first_name!r} and {name!r} cannot be mixed: their {what} differs ({one!r}, {other!r})"
                )
