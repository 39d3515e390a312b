from .background import BackgroundScoring as BackgroundScoring
from .cache import ScoreCache as ScoreCache
from .candidate_scores import CandidateScores as CandidateScores
from .candidates import ScoredCandidates as ScoredCandidates, ScoredPairs as ScoredPairs, Scores as Scores
from .even_chunks import even_chunks as even_chunks, in_even_chunks as in_even_chunks
from .functions import (
    SelectionFunction as SelectionFunction,
    grad_norm as grad_norm,
    register as register,
    selection_function as selection_function,
    selection_functions as selection_functions,
)
from .meter import Meter as Meter, NoMeter as NoMeter
from .remote_scorers import RemoteScorers as RemoteScorers, serve_scores as serve_scores
from .scorer import (
    BatchNormPolicy as BatchNormPolicy,
    Scorer as Scorer,
    ScoringOptions as ScoringOptions,
    scoring_mode as scoring_mode,
    seed_generators as seed_generators,
    without_ddp as without_ddp,
)
