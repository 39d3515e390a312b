from .checkpoint import load_checkpoint as load_checkpoint, save_checkpoint as save_checkpoint
from .costs import COST_NAMES as COST_NAMES, Costs as Costs
from .device import (
    autocast as autocast,
    choose_device as choose_device,
    has_bfloat16_tiles as has_bfloat16_tiles,
    one_thread as one_thread,
    place as place,
    random_state as random_state,
    repeatable_convolutions as repeatable_convolutions,
    resolve_precision as resolve_precision,
    restore_random_state as restore_random_state,
    seed_random as seed_random,
)
from .evaluation import Evaluation as Evaluation, EvaluationSet as EvaluationSet
from .of_samples import evaluation_set as evaluation_set, model_of_samples as model_of_samples
from .optimizers import (
    clip_gradients as clip_gradients,
    make_optimizer as make_optimizer,
    usual_options as usual_options,
)
from .pair_evaluation import PairEvaluationSet as PairEvaluationSet, ZeroShot as ZeroShot
from .pair_models import HIGHEST_SCALE as HIGHEST_SCALE, TwoTowers as TwoTowers, build_pairs_model as build_pairs_model
from .parallel import (
    average_buffers as average_buffers,
    in_parallel as in_parallel,
    is_sharded as is_sharded,
    load_model as load_model,
    load_optimizer as load_optimizer,
    whole_state as whole_state,
)
from .registry import build_model as build_model, count_parameters as count_parameters, takes_any_size as takes_any_size
from .retrieval import (
    retrieval_recall as retrieval_recall,
)
from .sharded_checkpoint import (
    load_parts as load_parts,
    save_parts as save_parts,
    take_parts as take_parts,
    with_parts as with_parts,
)
from .weight_average import average_in as average_in
