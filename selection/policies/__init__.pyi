from .arms import Arm as Arm, usual_arms as usual_arms
from .auto import Auto as Auto, Validation as Validation
from .gated_importance import GatedImportance as GatedImportance
from .handover import Handover as Handover, require_comparison as require_comparison
from .policy import Fixed as Fixed, Policy as Policy
from .selection_config import RULES as RULES, RuleName as RuleName, SelectionConfig as SelectionConfig
from .tau_gate import TauGate as TauGate
