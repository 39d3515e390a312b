from .comparison import Comparison as Comparison, VariantOutcome as VariantOutcome, compare as compare, report as report
from .outcomes import Outcome as Outcome
from .over_seeds import Spread as Spread, spread as spread
from .plots import RUN_COLORS as RUN_COLORS, accuracy_chart as accuracy_chart
