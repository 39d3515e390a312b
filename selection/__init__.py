"""What a trainer imports to choose: selection functions, the scorer, the selector and its loader, the ledger."""

from rhostream.selection.arms import Arm, usual_arms
from rhostream.selection.auto import Auto, Validation
from rhostream.selection.batch import Considered, SelectedBatch
from rhostream.selection.choosing import Chosen, GumbelTop, Rule, Top
from rhostream.selection.floors import ClassFloor, ScoreFloor
from rhostream.selection.functions import (
    SelectionFunction,
    register,
    selection_function,
    selection_functions,
)
from rhostream.selection.importance import Importance, TauGate
from rhostream.selection.ledger import Ledger
from rhostream.selection.live_il import LiveIL
from rhostream.selection.loader import SelectingLoader, images_and_labels, pixel_values_and_labels
from rhostream.selection.plan import Selection
from rhostream.selection.policy import Fixed, GatedImportance, Policy
from rhostream.selection.proxy import ProxyScorer
from rhostream.selection.score_cache import ScoreCache
from rhostream.selection.scored import Scored
from rhostream.selection.scorer import Scorer, ScoringOptions, scoring_mode
from rhostream.selection.selective_backprop import SelectiveBackprop
from rhostream.selection.selector import OnlineSelector

__all__ = [
    "Arm",
    "Auto",
    "Chosen",
    "ClassFloor",
    "Considered",
    "Fixed",
    "GatedImportance",
    "GumbelTop",
    "Importance",
    "Ledger",
    "LiveIL",
    "OnlineSelector",
    "Policy",
    "ProxyScorer",
    "Rule",
    "ScoreCache",
    "ScoreFloor",
    "Scored",
    "Scorer",
    "ScoringOptions",
    "SelectedBatch",
    "SelectingLoader",
    "Selection",
    "SelectionFunction",
    "SelectiveBackprop",
    "TauGate",
    "Top",
    "Validation",
    "images_and_labels",
    "pixel_values_and_labels",
    "register",
    "scoring_mode",
    "selection_function",
    "selection_functions",
    "usual_arms",
]
