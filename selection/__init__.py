"""What a trainer imports to choose: selection functions, the scorer, the selector and its loader, the ledger."""

from rhostream.selection.functions import (
    Scored,
    SelectionFunction,
    register,
    selection_function,
    selection_functions,
)
from rhostream.selection.ledger import Ledger
from rhostream.selection.loader import SelectingLoader, images_and_labels, pixel_values_and_labels
from rhostream.selection.scorer import Scorer, scoring_mode
from rhostream.selection.selector import OnlineSelector, SelectedBatch

__all__ = [
    "Ledger",
    "OnlineSelector",
    "Scored",
    "Scorer",
    "SelectedBatch",
    "SelectingLoader",
    "SelectionFunction",
    "images_and_labels",
    "pixel_values_and_labels",
    "register",
    "scoring_mode",
    "selection_function",
    "selection_functions",
]
