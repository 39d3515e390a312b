"""A stage for somebody else's WebDataset pipeline: joins every sample with its irreducible loss, by key."""

import logging
import os
from collections.abc import Iterable, Iterator
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


class WithIL:
    """What `with_il` gives: call it with the samples. Pickles to DataLoader workers as the table's path.

    Attributes:
        joined, dropped: samples so far, in this process.
    """

    def __init__(self, path: str, on_missing: Literal["error", "drop"]) -> None:
        self.path, self.on_missing = path, on_missing
        self.joined = self.dropped = 0
        self._table: KeyTable | None = KeyTable.of_parquet(path)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples with `il` (float, nats), and `predicted` (the IL model's class) where the table tells it.

        Raises:
            IrreducibleLossError: a sample has no finite irreducible loss and is not to be dropped, or has no `__key__`.
        """
        if self._table is None:
            self._table = KeyTable.of_parquet(self.path)
        source, dropped = iter(samples), self.dropped
        while some := list(islice(source, _AT_ONCE)):
            found = self._join(some, self._table)
            usable = np.isfinite(found.il)
            if not usable.all():
                self._pass_over(some, usable)
            for sample, il, predicted, has_il in zip(
                some, found.il.tolist(), found.predicted.tolist(), usable.tolist(), strict=True
            ):
                if has_il:
                    self.joined += 1
                    yield {**sample, "il": il, **({"predicted": predicted} if predicted >= 0 else {})}
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

    def _pass_over(self, some: list[Sample], usable: npt.NDArray[np.bool_]) -> None:
        count = int((~usable).sum())
        if self.on_missing == "drop":
            self.dropped += count
            return
        first = some[int(np.argmin(usable))]
        raise IrreducibleLossError(
            f"{count} of {len(some)} samples (after {self.joined} good ones) have no finite irreducible loss in "
            f"{self.path}, the first is {first['__key__']} of {first.get('__url__', 'an unnamed tar')}: score them, or "
            'pass on_missing="drop" to pass over such samples (those of the holdout and the test split are meant to '
            "have none)"
        )


def with_il(table: str | os.PathLike[str], *, il: str = "", on_missing: Literal["error", "drop"] = "error") -> WithIL:
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

    Raises:
        IrreducibleLossError: there is no such table.
    """
    if on_missing not in ("error", "drop"):
        raise ConfigError(f"on_missing {on_missing!r}: choose 'error' or 'drop'")
    path = Workspace(table).path(f"il/{il}/scores") if il else os.fspath(table)
    return WithIL(path, on_missing)
