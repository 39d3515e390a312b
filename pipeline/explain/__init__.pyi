from .ask import (
    Options as Options,
    explain as explain,
    explanation as explanation,
    named_il_model as named_il_model,
    named_run as named_run,
)
from .asked import identifier as identifier, indented as indented
from .reasons import REASONS as REASONS, sample_reasons as sample_reasons
from .titles import QUESTIONS as QUESTIONS
