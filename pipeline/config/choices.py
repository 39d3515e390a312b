"""The values that settings choose from, told without the imports of what implements them (tests compare the two)."""

from typing import Final, Literal

Augmentation = Literal["none", "shift", "shift_flip", "resized_crop"]
BatchNormPolicy = Literal["batch", "eval"]
#: Who works on the units of a stage, see `rhostream.pipeline.jobs.Engine`.
EngineName = Literal["local", "ray", "static"]
Precision = Literal["auto", "float32", "bfloat16"]
#: What there is to predict of a sample: one class, any number of them, or which image and caption belong together.
TaskName = Literal["classification", "multi_label", "pairs"]
#: Of a batch of pairs: that of SigLIP, and that of CLIP.
ContrastiveLoss = Literal["sigmoid", "softmax"]
RuleName = Literal["default", "top", "gumbel", "importance", "joint", "weighted"]
#: What runs are compared by; auto: accuracy, the mean average precision, or the recall, by the task.
Metric = Literal["auto", "accuracy", "mcc", "f1", "zero_shot"]
ThumbnailFormat = Literal["jpeg", "raw"]

AUTO: Final = "auto"  # in place of a selection function: `rhostream.selection.policies.Auto`

#: The selection functions that come with rhostream; others can be registered.
SELECTION_FUNCTIONS: Final = (
    "bald",
    "conditional_entropy",
    "drrho",
    "easy_reference",
    "entropy",
    "grad_norm",
    "grad_norm_is",
    "hard_learner",
    "irreducible_loss",
    "jest",
    "learnability",
    "learnable",
    "loss_minus_conditional_entropy",
    "rho_loss",
    "selective_backprop",
    "train_loss",
    "uniform",
)

BUILT_IN_MODELS: Final = (
    "strided_cnn",
    "small_cnn",
    "lenet5",
    "bn_cnn",
    "mlp",
    "small_mlp",
    "mlp_dropout",
    "resnet8",
    "resnet18_cifar",
    "small_vit",
)

#: Those that take texts: an IL model and a target.
TEXT_IL_MODEL: Final = "bag_of_ngrams"
TEXT_MODEL: Final = "tiny_transformer"
TEXT_MODELS: Final = (TEXT_IL_MODEL, TEXT_MODEL)

#: That which takes pairs of images and texts.
PAIRS_MODEL: Final = "small_clip"

MAX_PIXELS: Final = 178_956_970  # Pillow's own bound for decompression bombs, twice its warning
