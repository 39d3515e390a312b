from .ask import (
    Options as Options,
    explain as explain,
    explanation as explanation,
    named_clusters as named_clusters,
    named_il_model as named_il_model,
    named_run as named_run,
)
from .contradictions import judgments as judgments, why_doubted as why_doubted
from .copies import Copies as Copies, find_copies as find_copies
from .reasons import REASONS as REASONS, sample_reasons as sample_reasons
from .scope import identifier as identifier, indented as indented
from .titles import QUESTIONS as QUESTIONS
