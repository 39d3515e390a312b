"""The stream of candidates of one corpus: shards joined with the IL table, as super-batches."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.decode import Augmentation, ImageSpec, InputSpec, ReadOptions, TextSpec
from rhostream.loaders.index import Clusters, CoreSet, CorpusMetadata, Shard, ShardList, Thumbnails, stored_tokens
from rhostream.loaders.reference import Prefilter, il_spec, open_il_table
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream.block import JoinSettings
from rhostream.loaders.stream.candidate_reader import CandidateReader, Candidates
from rhostream.loaders.stream.candidate_table import CandidateTable
from rhostream.loaders.stream.order import EpochOrder, Order
from rhostream.loaders.stream.ranks import given_ranks
from rhostream.loaders.stream.super_batch_stream import SuperBatchStream, read_options_here

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_log = logging.getLogger(__name__)


class CandidateStream(SuperBatchStream):
    """Candidates for online selection, each with its irreducible loss, as super-batches B_t of n_B.

    Use it as it is, or in a `DataLoader(stream, batch_size=None, num_workers=…)`. One iteration is the rest of one
    epoch; the next one is that of the next epoch, which with workers must be said by `set_epoch`. The order
    is a function of (seed, epoch) and the index: the same global sequence for any number of ranks and workers, no
    sample twice an epoch (`Order.last` says what becomes of those that do not fill a super-batch at its end). The ranks
    of a job share out each super-batch: every rank reads the pixels of its part.

    Args:
        workspace: a workspace with shards, or with an index of tars that lie elsewhere.
        il: an IL table: its name in the workspace, or the path of a Parquet with columns key and il. None joins none.
        super_batch_size: n_B, over all ranks of the job.
        seed: of the order and the augmentation.
        shards: what to read; all shards of the split "train" where None.
        spec: of the images or texts to train on; the manifest's where None.
        text_spec: of the captions, of a corpus of pairs; the manifest's where None.
        thumbnails: name of thumbnails ("64-jpeg"): candidates are then scored on its small
            thumbnails, and the images to train on are read for the selected alone. None scores what is trained on, as
            does an exact spec (see `rhostream.loaders.index.thumbnails.Thumbnails`), from which all pixels are read.
        augmentation: see `rhostream.loaders.decode.augmentation`; drawn from (seed, epoch, key).
        core_set: name of a core set: other samples are passed over, without being read.
        clusters: name of clusters: each candidate's is joined, as `super_batch.extra["cluster"]`.
        validation_share: share of the samples that is passed over, for the trainer to measure its progress on.
        prefilter: rules candidates out by their IL before they are read (while `prefiltering` is on).
        on_missing: "drop" passes over samples without a finite IL; by default they are an error.
        extra: further columns of the index to carry along.
        texts: have the raw texts along (`batch.texts`), even where stored tokens spare reading them.
        order, read_options: finer settings.
        dp_rank, dp_world_size: the data-parallel rank of this process and their number, where they are not those of
            the process group: tensor-, pipeline- and context-parallel peers name the same rank, and get the same data.
        mesh: or the data-parallel dimensions of the job's device mesh, `mesh["dp"]`.

    Raises:
        WorkspaceError: the shards there are not finished, or there are no such shards, thumbnails, core set, clusters.
        IrreducibleLossError: the IL table does not serve these shards.
    """

    def __init__(
        self,
        workspace: Workspace | str | os.PathLike[str],
        *,
        il: str | None = None,
        super_batch_size: int = 320,
        seed: int = 0,
        shards: Sequence[Shard] | None = None,
        spec: InputSpec | None = None,
        text_spec: TextSpec | None = None,
        thumbnails: str | None = None,
        augmentation: Augmentation = "none",
        core_set: str | None = None,
        clusters: str | None = None,
        validation_share: float = 0.0,
        prefilter: Prefilter | None = None,
        on_missing: Literal["error", "drop"] = "error",
        extra: tuple[str, ...] = (),
        texts: bool = False,
        order: Order = Order(),
        read_options: ReadOptions = ReadOptions(),
        dp_rank: int | None = None,
        dp_world_size: int | None = None,
        mesh: "DeviceMesh | None" = None,
    ) -> None:
        if order.within_clusters and clusters is None:
            raise ConfigError("within_clusters: name the clusters with clusters=")
        if prefilter is not None and il is None:
            raise ConfigError("a prefilter rules candidates out by their irreducible loss: name an IL table with il=")
        workspace = Workspace(workspace)
        self.corpus = CorpusMetadata.read(workspace)
        if prefilter is not None and self.corpus.task != "classification":
            raise ConfigError(
                "a prefilter compares one label with the one that the IL model predicts, which a corpus of task "
                f"{self.corpus.task} has not: leave it out"
            )
        self.shards = self.corpus.split("train") if shards is None else ShardList.of(shards)
        if not self.shards:
            raise WorkspaceError(
                f"workspace {workspace.location!r} has no shards to stream, of {self.corpus.counts}: name other shards"
            )
        self._samples = self.shards.samples  # once, not in every step
        spec = spec or self.corpus.input_spec()
        is_pairs = self.corpus.task == "pairs"
        if text_spec is not None and not is_pairs:
            raise ConfigError("text_spec: the samples have no captions beside their images or texts; leave it out")
        text_spec = (text_spec or self.corpus.text_spec()) if is_pairs else None
        _require_field(spec, self.corpus, thumbnails=thumbnails, augmentation=augmentation)
        self.thumbnails = Thumbnails.read(workspace, self.corpus, thumbnails) if thumbnails else None
        super().__init__(
            workspace=workspace,
            super_batch_size=super_batch_size,
            seed=seed,
            spec=spec,
            scoring_spec=_scoring_spec(spec, self.thumbnails),
            text_spec=text_spec,
            augmentation=augmentation,
            order=order,
            read_options=read_options,
            ranks=given_ranks(dp_rank, dp_world_size, mesh),
        )
        table = open_il_table(workspace, self.corpus, il) if il is not None else None
        self._join = JoinSettings(
            table=table,
            core_set=CoreSet.read(workspace, self.corpus, core_set) if core_set is not None else None,
            clusters=Clusters.read(workspace, self.corpus, clusters) if clusters is not None else None,
            validation_share=validation_share,
            prefilter=prefilter,
            on_missing=on_missing,
            classes=len(self.corpus.classes),
        )
        self._epoch_order = partial(EpochOrder, self.shards.rows, seed=seed, block_shards=order.block_shards)
        self._extra = extra
        # The captions of pairs are in the index: to have them along costs nothing.
        tokenized = text_spec or spec
        self._tokens = None if texts and not is_pairs else stored_tokens(workspace, self.corpus, tokenized, self.shards)
        self.reference = table.reference if table is not None else None
        self._reading: tuple[int, CandidateReader] | None = None  # with its process
        clustered = self._join.clusters.identity if order.within_clusters and self._join.clusters else None
        if clustered is not None:  # then the order depends on where super-batches begin, too
            clustered = f"{clustered}/{super_batch_size}"
        made_of = [self.order.block_shards, *([clustered] if clustered else [])]
        self._order_digest = self.shards.order_digest(made_of)[:16]
        self._tell_specs(il)

    @property
    def samples(self) -> int:
        """Candidates of an epoch, over all ranks."""
        return self._samples

    @property
    def order_digest(self) -> str:
        """Identifies the shards and how their sequence is cut."""
        return self._order_digest

    def epoch_order(self, epoch: int) -> EpochOrder:
        """The global sequence of one epoch."""
        return self._epoch_order(epoch)

    @property
    def joins_il(self) -> bool:
        return self._join.table is not None

    def read(self, epoch: int, first: int, last: int, *, prefiltering: bool = True) -> Candidates:
        to_read, passed_over = zip(*self.parts(epoch, first, last, prefiltering=prefiltering), strict=True)
        return CandidateTable.concat(to_read), CandidateTable.concat(passed_over)

    def parts(self, epoch: int, first: int, last: int, *, prefiltering: bool = True) -> list[Candidates]:
        """The same in parts of one block each; empty where first is last."""
        if self._reading is None or self._reading[0] != os.getpid():
            self._reading = (os.getpid(), self._candidate_reader())
        return self._reading[1].read(epoch, first, last, prefiltering)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_reading": None}

    def _candidate_reader(self) -> CandidateReader:
        return CandidateReader(
            self.workspace,
            self.shards,
            order=self._epoch_order,
            seed=self.seed,
            join=self._join,
            extra=self._extra,
            field=self.spec.field,
            tokens=self._tokens,
            thumbnails=self.thumbnails.name if self.thumbnails else None,
            augmentation=self.augmentation,
            verify=read_options_here(self.read_options).verify,
            cluster_size=min(self.super_batch_size, self.samples) if self.order.within_clusters else None,
            with_originals=not (self.thumbnails is None or self.thumbnails.shows(self.spec)),
        )

    def _tell_specs(self, il: str | None) -> None:
        """Losses of unlike pixels are compared: the paper's own practice for a small IL model, but to be known."""
        seen = il_spec(self.workspace, il) if il is not None else None
        scored = self.scoring_spec
        if not isinstance(seen, ImageSpec) or not isinstance(scored, ImageSpec):
            return  # losses of one text under two tokenizers are of the same words
        if (seen.size, seen.channels) != (scored.size, scored.channels):
            _log.warning(
                "IL table %r was computed on images of %d pixels and %d channel(s), candidates are scored on %d pixels "
                "and %d channel(s)",
                il,
                seen.size,
                seen.channels,
                scored.size,
                scored.channels,
            )


def _require_field(spec: InputSpec, corpus: CorpusMetadata, *, thumbnails: str | None, augmentation: str) -> None:
    """Raises ConfigError where the settings are of another field than the corpus's samples have."""
    if spec.field != corpus.input_field:
        raise ConfigError(
            f"a spec of {spec.field}s for a corpus of {corpus.input_field}s: give "
            f"{'a TextSpec' if corpus.input_field == 'text' else 'an ImageSpec'}"
        )
    if spec.field != "image" and (thumbnails or augmentation != "none"):
        given = f"thumbnails {thumbnails!r}" if thumbnails else f"augmentation {augmentation!r}"
        raise ConfigError(f"{given}: the corpus has {corpus.input_field}s, not images; leave it out")


def _scoring_spec(spec: InputSpec, thumbnails: Thumbnails | None) -> InputSpec:
    """Of the pixels that candidates are scored on."""
    if thumbnails is None or not isinstance(spec, ImageSpec) or thumbnails.shows(spec):
        return spec
    return replace(spec, size=min(spec.size, thumbnails.size))
