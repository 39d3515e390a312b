from .companions import LiveIL as LiveIL, ProxyScorer as ProxyScorer
from .data_loader import (
    SelectingLoader as SelectingLoader,
    images_and_labels as images_and_labels,
    pixel_values_and_labels as pixel_values_and_labels,
    tokens_and_labels as tokens_and_labels,
)
from .ledger import Ledger as Ledger
from .policies import (
    Arm as Arm,
    Auto as Auto,
    Fixed as Fixed,
    GatedImportance as GatedImportance,
    Handover as Handover,
    Policy as Policy,
    SelectionConfig as SelectionConfig,
    TauGate as TauGate,
    Validation as Validation,
    usual_arms as usual_arms,
)
from .replay import ReplayStream as ReplayStream
from .rules import (
    Chosen as Chosen,
    ClassFloor as ClassFloor,
    ClusterFloor as ClusterFloor,
    GumbelTop as GumbelTop,
    Importance as Importance,
    Joint as Joint,
    PairScores as PairScores,
    Rule as Rule,
    ScoreFloor as ScoreFloor,
    SelectiveBackprop as SelectiveBackprop,
    Top as Top,
    Weighted as Weighted,
)
from .scoring import (
    ScoreCache as ScoreCache,
    ScoredCandidates as ScoredCandidates,
    ScoredPairs as ScoredPairs,
    Scorer as Scorer,
    ScoringOptions as ScoringOptions,
    SelectionFunction as SelectionFunction,
    register as register,
    scoring_mode as scoring_mode,
    selection_function as selection_function,
    selection_functions as selection_functions,
)
from .selected_batch import SelectedBatch as SelectedBatch
from .selector import OnlineSelector as OnlineSelector
from .tasks import (
    Classification as Classification,
    MultiLabel as MultiLabel,
    PairEmbeddings as PairEmbeddings,
    Pairs as Pairs,
    Task as Task,
    images_and_tokens as images_and_tokens,
    transformers_outputs as transformers_outputs,
)
from .token_selection import selective_token_loss as selective_token_loss, token_losses as token_losses
from .transforms import PerBatch as PerBatch, PerSample as PerSample, Transform as Transform
