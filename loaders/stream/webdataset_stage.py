"""A stage for somebody else's WebDataset pipeline: joins every sample with its irreducible loss, by key."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rhostream.errors import ConfigError, IrreducibleLossError
from rhostream.loaders.index import webdataset_key
from rhostream.loaders.reference import JoinedRows, KeyTable
from rhostream.loaders.storage import Workspace

_AT_ONCE = 64  # samples looked up together, at a tenth of the cost of one by one

_log = logging.getLogger(__name__)

Sample = dict[str, Any]
#: webdataset's protocol: True goes on without the sample, False ends the pass, and it may raise.
Handler = Callable[[Exception], bool]


class WithIL:
    """What `with_il` gives: call it with the samples. Pickles to DataLoader workers as the table's path.

    Attributes:
        joined, dropped: samples so far, in this process.
    """

    def __init__(self, path: str, on_missing: Literal["error", "drop"], handler: Handler | None) -> None:
        self.path, self.on_missing, self.handler = path, on_missing, handler
        self.joined = self.dropped = 0
        self._table: KeyTable | None = KeyTable.of_parquet(path)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples with `il` (float, nats), and `predicted` (the IL model's class) where the table tells it.

        Raises:
            IrreducibleLossError: a sample has no finite irreducible loss, which is not for `on_missing` or the handler
                to settle, or it has no `__key__`.
        """
        if self._table is None:
            self._table = KeyTable.of_parquet(self.path)
        source, dropped = iter(samples), self.dropped
        while some := list(islice(source, _AT_ONCE)):
            found = self._join(some, self._table)
            usable = np.isfinite(found.il)
            if self.handler is None and self.on_missing == "error" and not usable.all():
                raise self._missing(some, usable)
            for sample, il, predicted, has_il in zip(
                some, found.il.tolist(), found.predicted.tolist(), usable.tolist(), strict=True
            ):
                if has_il:
                    self.joined += 1
                    yield {**sample, "il": il, **({"predicted": predicted} if predicted >= 0 else {})}
                    continue
                if self.handler is not None and not self.handler(self._missing([sample], np.zeros(1, np.bool_))):
                    return
                self.dropped += 1
        if self.dropped > dropped:
            _log.warning(
                "with_il has dropped %d of %d samples, which have no irreducible loss in %s",
                self.dropped,
                self.dropped + self.joined,
                self.path,
            )

    def _join(self, some: list[Sample], table: KeyTable) -> JoinedRows:
        try:
            names = [str(sample["__key__"]) for sample in some]
        except (KeyError, TypeError) as error:
            raise IrreducibleLossError(
                "with_il got samples without __key__: put it before the stages that make tuples or batches of them"
            ) from error
        il, predicted = table.lookup(names)
        for with_tar in (False, True):
            missing = np.flatnonzero(np.isnan(il))
            if not len(missing):
                break
            keys = [webdataset_key(names[i], str(some[i].get("__url__", "")) if with_tar else "") for i in missing]
            il[missing], predicted[missing] = table.lookup(keys)
        return JoinedRows(il=il, predicted=predicted)

    def _missing(self, some: list[Sample], usable: npt.NDArray[np.bool_]) -> IrreducibleLossError:
        count = int((~usable).sum())
        first = some[int(np.argmin(usable))]
        return IrreducibleLossError(
            f"{count} of {len(some)} samples (after {self.joined} good ones) have no finite irreducible loss in "
            f"{self.path}, the first is {first['__key__']} of {first.get('__url__', 'an unnamed tar')}: score them, or "
            'pass on_missing="drop" to pass over such samples (those of the holdout and the test split are meant to '
            "have none)"
        )


def with_il(
    table: str | os.PathLike[str],
    *,
    il: str = "",
    on_missing: Literal["error", "drop"] = "error",
    handler: Handler | None = None,
) -> WithIL:
    """`wds.WebDataset(...).decode(...).compose(with_il(table))`: joins every sample with its irreducible loss by key.

    A sample is looked up by its `__key__` as it is; then, for tables of workspaces over tars in place, by the
    key that a name with a folder in it ("n01440764/n01440764_10026") has there; then by the one that `--keys tar` gives
    it, from `__url__` and `__key__`. A leading "./" does not count.

    Before `.decode`, say `.decode(..., partial=True)`: webdataset's decoder otherwise takes bytes alone. 64 samples are
    looked up at a time; none is re-ordered.

    Args:
        table: a Parquet file or folder (path or fsspec URL) with columns key and il; or a workspace, with `il`.
        il: name of the IL model in that workspace.
        on_missing: "error" for a sample without a finite irreducible loss; "drop" passes over it, counts it in
            `dropped`, and logs the sum at the end of each pass.
        handler: webdataset's own way to settle it, sample by sample: `wds.warn_and_continue` and the like are given the
            error. What it goes on without is counted and logged as above.

    Raises:
        IrreducibleLossError: there is no such table.
        ConfigError: a handler beside `on_missing="drop"`, which leaves it nothing to do.
    """
    if on_missing not in ("error", "drop"):
        raise ConfigError(f"on_missing {on_missing!r}: choose 'error' or 'drop'")
    if handler is not None and on_missing == "drop":
        raise ConfigError('on_missing="drop" leaves a handler nothing to do: give one of the two')
    path = Workspace(table).path(f"il/{il}/scores") if il else os.fspath(table)
    return WithIL(path, on_missing, handler)
