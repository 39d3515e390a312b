from .budget import steps_of as steps_of
from .loop import follow as follow, train as train
from .plan import TrainPlan as TrainPlan, plan_training as plan_training
from .properties import PASSED_OVER as PASSED_OVER
from .quality import (
    measure as measure,
    qualities as qualities,
    quality as quality,
    require_measured as require_measured,
)
from .run import Run as Run
from .selection_plan import require_selection as require_selection
from .step_cost import StepCost as StepCost, measure_step as measure_step
from .untrained_models import untrained_model as untrained_model
