from .il_config import ILTrainConfig as ILTrainConfig
from .layers import from_text as from_text, settings as settings
from .manifest import (
    Manifest as Manifest,
    Noise as Noise,
    load_manifest as load_manifest,
    resolve_manifest as resolve_manifest,
)
from .templates import write_template as write_template
from .train_config import AUTO as AUTO, TrainConfig as TrainConfig, require_selection as require_selection
