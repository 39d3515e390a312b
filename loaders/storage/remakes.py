"""Which stage makes an artifact of a workspace again, by its name."""

import re
from typing import Final

from rhostream.errors import Remedy, Stage

#: Named groups become settings of the stage; `overwrite` where it keeps what it finds, however damaged.
_STAGES: Final = (
    (r"corpus\.json|shard_lists/.+|index/.+|rejects/.+|shards/.+", Stage.SHARDS, False),
    (r"scans/.+", Stage.INDEX, False),
    (r"thumbnails/(?P<size>\d+)-(?P<format>\w+)/index/(?P<split>[a-z]+)-.+", Stage.THUMBNAILS, False),
    (r"thumbnails/(?P<size>\d+)-(?P<format>\w+)/.+", Stage.THUMBNAILS, False),
    (r"tokens/[^/]+/rows/(?P<split>[a-z]+)-.+", Stage.TOKENS, True),
    (r"tokens/.+", Stage.TOKENS, False),
    (r"il/(?P<name>[^/]+)/scores/(?P<only>.+)\.parquet", Stage.IL_SCORE, False),
    (r"il/(?P<name>[^/]+)/.+", Stage.IL_TRAIN, True),
    (r"core_sets/(?P<name>[^/]+)/.+", Stage.CORE_SET, True),
    (r"clusters/(?P<name>[^/]+)/.+", Stage.CLUSTER, True),
    (r"runs/(?P<name>[^/]+)/.+", Stage.TRAIN, True),
)


def remake(workspace: str, name: str, *, in_place: bool) -> Remedy | None:
    """What makes the artifact `name` anew; None where no stage does.

    Args:
        workspace: its location.
        in_place: does it index tars where they lie?
    """
    for pattern, stage, overwrite in _STAGES:
        if found := re.fullmatch(pattern, name):
            settings: dict[str, str | bool] = dict(found.groupdict())
            made = Stage.INDEX if in_place and stage is Stage.SHARDS else stage
            return Remedy(made, workspace, settings | ({"overwrite": True} if overwrite else {}))
    return None
