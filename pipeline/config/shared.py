"""What settings of several stages have in common: attributes of `rhostream.pipeline.config.definition.Setting`."""

from typing import Any, Final

from rhostream.pipeline.config.choices import BUILT_IN_MODELS, PAIRS_MODEL, TEXT_MODELS

MODEL: Final[dict[str, Any]] = {
    "metavar": "MODEL",
    "help": f"Of images one of {', '.join(BUILT_IN_MODELS)}, a classifier of torchvision by its name, or timm/NAME. Of "
    f"texts {' or '.join(TEXT_MODELS)}, or transformers/FOLDER with a local sequence classifier of Hugging Face. Of "
    f"pairs {PAIRS_MODEL}, tiny_clip, or open_clip/FOLDER with a local model of open_clip.",
}
WEIGHTS: Final[dict[str, Any]] = {
    "metavar": "FILE",
    "help": "Local .safetensors or .pt weights to start from.",
}
AUGMENTATION: Final[dict[str, Any]] = {"help": "Random changes of the images trained on."}
SEED: Final[dict[str, Any]] = {"metavar": "N", "help": "Of the model, the order and the augmentation."}
PRECISION: Final[dict[str, Any]] = {"help": "Of the passes; auto takes bfloat16 on GPUs that compute in it."}
IMAGE_SIZE: Final[dict[str, Any]] = {
    "minimum": 0,
    "metavar": "PIXELS",
    "unset": "the manifest's",
    "help": "Side of the images that the model sees.",
}
TOKENIZER: Final[dict[str, Any]] = {
    "metavar": "FILE",
    "unset": "the manifest's",
    "help": "Of texts: words, or a tokenizer.json, or the folder that holds one.",
}
TEXT_LENGTH: Final[dict[str, Any]] = {
    "minimum": 0,
    "metavar": "TOKENS",
    "unset": "the manifest's, else 128",
    "help": "Tokens of a text that the model sees; what is longer is cut.",
}
CONTRASTIVE_LOSS: Final[dict[str, Any]] = {
    "help": "Of pairs: softmax (CLIP) or sigmoid (SigLIP); that of the target should be the reference model's.",
}
WARMUP: Final[dict[str, Any]] = {
    "minimum": 0,
    "metavar": "X",
    "help": "Steps during which the learning rate rises to its peak; below 1 a share of the budget.",
}
CLIP_GRAD_NORM: Final[dict[str, Any]] = {
    "minimum": 0,
    "metavar": "X",
    "unset": "off",
    "help": "Scale the gradients of a step down where their norm, over all parameters, is above X.",
}
THREADS: Final[dict[str, Any]] = {"minimum": 0, "metavar": "N", "help": "Decoding threads, of each process."}
SPLITS: Final[dict[str, Any]] = {"flag": "--split", "metavar": "SPLIT", "help": "Split to read; may be repeated."}
DEVICE: Final[dict[str, Any]] = {
    "variable": "RHO_DEVICE",
    "metavar": "[auto|cpu|cuda|cuda:N]",
    "pattern": r"auto|cpu|cuda(:\d+)?",
    "form": "choose auto, cpu, cuda or cuda:N",
    "help": "Where the model runs; auto takes CUDA where there is one.",
}
CHECKPOINT_MINUTES: Final[dict[str, Any]] = {
    "minimum": 0,
    "metavar": "X",
    "help": "Minutes between checkpoints, beside those at evaluations and the one that SIGTERM and Ctrl-C ask for; "
    "0 for none.",
}
WORKERS: Final[dict[str, Any]] = {
    "variable": "RHO_WORKERS",
    "minimum": 0,
    "metavar": "N",
    "help": "Worker processes, or actors; 0 works in this one. The result is the same for any number.",
}
ENGINE: Final[dict[str, Any]] = {
    "variable": "RHO_ENGINE",
    "help": "Who does the work: processes of this machine, actors of a Ray cluster (RAY_ADDRESS names one that is "
    "there), or this job its share, as RANK and WORLD_SIZE tell. The result is the same.",
}
IL_NAME: Final[dict[str, Any]] = {"variable": "RHO_IL", "metavar": "NAME"}

#: Names that are folders of a workspace.
NAME: Final = r"(?!\.)(?!.*\.parquet$)[A-Za-z0-9._-]*"
NAME_FORM: Final = "use letters, digits, '.', '_' and '-', without a dot in front or '.parquet' at the end"
