"""Processes that have torch loaded as they begin: forked from a server, so that each starts in milliseconds."""

import multiprocessing
import os
from collections.abc import Callable
from typing import Any, Final

#: What commands import on their way, some seconds of it for each start. A sweep of signals that is to meet a command
#: then, too, sets the variable.
_ON_THE_WAY: Final = (
    "jinja2",
    "matplotlib.backends.backend_agg",
    "pandas",
    "pyarrow.csv",
    "pyarrow.dataset",
    "rhostream.pipeline.comparison.plots",
    "rhostream.pipeline.in_place.tars",
    "rhostream.pipeline.report.page",
    "rhostream.pipeline.shards.write",
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
)
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "rhostream.cli.main",
        "rhostream.pipeline.il.train",
        "rhostream.pipeline.il.score",
        "rhostream.pipeline.sql.database",
        "rhostream.pipeline.training.loop",
        "torch._dynamo",
        *(() if "RHO_TEST_IMPORTS" in os.environ else _ON_THE_WAY),
    ]
)


def begin(target: Callable[..., None], arguments: tuple[Any, ...]) -> Any:
    """A process that runs this function, with the environment that the server began with."""
    process = _server.Process(target=target, args=arguments)
    process.start()
    return process
