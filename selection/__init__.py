"""What a trainer imports to choose: selection functions, the scorer, the selector, the ledger."""

from rhostream.selection.functions import (
    Scored,
    SelectionFunction,
    register,
    selection_function,
    selection_functions,
)
from rhostream.selection.ledger import Ledger
from rhostream.selection.scorer import Scorer, scoring_mode
from rhostream.selection.selector import OnlineSelector, SelectedBatch

__all__ = [
    "Ledger",
    "OnlineSelector",
    "Scored",
    "Scorer",
    "SelectedBatch",
    "SelectionFunction",
    "register",
    "scoring_mode",
    "selection_function",
    "selection_functions",
]
