from .clusters import write_clusters as write_clusters
from .core_set import write_core_set as write_core_set
from .metadata import (
    ILMetadata as ILMetadata,
    default_il_model as default_il_model,
    il_costs as il_costs,
    trained_models as trained_models,
)
from .quality import (
    FEWEST_CERTAIN as FEWEST_CERTAIN,
    MOST_CERTAIN as MOST_CERTAIN,
    PREFILTER_RULE as PREFILTER_RULE,
    ILQuality as ILQuality,
    il_quality as il_quality,
)
from .score import score_il as score_il
from .train import train_il as train_il
