from .choices import (
    AUTO as AUTO,
    BUILT_IN_MODELS as BUILT_IN_MODELS,
    PAIRS_MODEL as PAIRS_MODEL,
    SELECTION_FUNCTIONS as SELECTION_FUNCTIONS,
    TEXT_IL_MODEL as TEXT_IL_MODEL,
    TEXT_MODEL as TEXT_MODEL,
    TEXT_MODELS as TEXT_MODELS,
    EngineName as EngineName,
    Metric as Metric,
    Precision as Precision,
    TaskName as TaskName,
)
from .clean_list_config import CleanListConfig as CleanListConfig
from .cluster_config import ClusterConfig as ClusterConfig
from .core_set_config import CoreSetConfig as CoreSetConfig
from .definition import Setting as Setting, StageConfig as StageConfig, definitions as definitions, setting as setting
from .il_config import ILScoreConfig as ILScoreConfig, ILTrainConfig as ILTrainConfig
from .layers import from_text as from_text, settings as settings
from .manifest import (
    Manifest as Manifest,
    Noise as Noise,
    load_manifest as load_manifest,
    resolve_manifest as resolve_manifest,
)
from .schedules import rate_share as rate_share
from .tables import settings_table as settings_table
from .templates import write_template as write_template
from .thumbnails_config import ThumbnailsConfig as ThumbnailsConfig
from .tokenize_config import TokenizeConfig as TokenizeConfig
from .train_config import TrainConfig as TrainConfig
from .webdataset_options import WebDatasetOptions as WebDatasetOptions
from .weights import weights_digest as weights_digest
