"""The settings of `rho cluster`."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from rhostream.errors import ConfigError
from rhostream.pipeline.config.choices import EngineName
from rhostream.pipeline.config.definition import StageConfig, setting
from rhostream.pipeline.config.shared import ENGINE, IL_NAME, WORKERS


@dataclass(frozen=True, kw_only=True)
class ClusterConfig(StageConfig):
    """What is clustered, into how many clusters.

    Raises:
        ConfigError: a value that its setting does not allow, or values that do not go together.
    """

    STAGE: ClassVar[str] = "clusters "

    name: str = setting(
        "kmeans",
        variable="RHO_CLUSTERS_NAME",
        metavar="NAME",
        pattern=r"[A-Za-z0-9_-][A-Za-z0-9._-]*",
        form="use letters, digits, '.', '_' and '-', without a dot in front",
        help="Name of the clusters.",
    )
    count: int = setting(10, minimum=2, metavar="N", variable="RHO_CLUSTERS_COUNT", help="How many clusters.")
    of: Literal["image", "text"] = setting(
        "image", variable="RHO_CLUSTERS_OF", help="Which embedding of a pair; captions may be another's."
    )
    embeddings: str = setting(
        "",
        metavar="FOLDER",
        variable="RHO_CLUSTERS_EMBEDDINGS",
        unset="the reference table's",
        help="Embeddings of any model's in place of the reference table's: Parquet of the name of each training shard "
        "(train-000000.parquet), with the columns key and embedding (a list of numbers), row for row.",
    )
    seed: int = setting(0, minimum=0, metavar="N", variable="RHO_CLUSTERS_SEED", help="Of the first centers.")
    il: str = setting("", **IL_NAME, unset="the only one", help="Reference model whose table holds the embeddings.")
    engine: EngineName = setting("local", **ENGINE)
    workers: int = setting(0, **WORKERS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embeddings and (self.il or self.of != "image"):
            raise ConfigError(
                f"embeddings {self.embeddings!r} in place of a reference table's: leave il and of out, which are of it"
            )
