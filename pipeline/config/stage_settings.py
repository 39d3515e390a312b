"""The settings that a manifest's [il] and [train] may give, told without the imports of the stages that use them.

They are the fields of `ILTrainConfig` and `TrainConfig`, which import torch: reading a manifest must not wait for that.
"""

from typing import Literal, TypedDict

Augmentation = Literal["none", "shift", "shift_flip", "resized_crop"]
Precision = Literal["auto", "float32", "bfloat16"]


class ILSettings(TypedDict, total=False):
    """Of `rhostream.pipeline.config.il_config.ILTrainConfig`."""

    name: str
    model: str
    weights: str | None
    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    schedule: Literal["one_cycle", "constant"]
    weight_decay: float
    validation_share: float
    validation_samples: int
    image_size: int
    augmentation: Augmentation
    seed: int
    device: str
    precision: Precision
    threads: int


class TrainSettings(TypedDict, total=False):
    """Of `rhostream.pipeline.config.train_config.TrainConfig`."""

    name: str
    il: str
    model: str
    weights: str
    select: str
    batch_size: int
    super_batch_size: int
    steps: int
    epochs: float
    candidates: int
    learning_rate: float
    weight_decay: float
    schedule: Literal["cosine", "constant"]
    image_size: int
    augmentation: Augmentation
    batchnorm: Literal["batch", "eval"]
    thumbnails: str
    score_ahead: bool
    share: float
    rule: Literal["default", "top", "gumbel", "importance"]
    temperature: float
    class_floor: float
    score_floor: float | None
    score_age: int
    score_precision: Literal["auto", "float32", "bfloat16", "float16"]
    score_size: int
    score_compile: bool
    proxy: bool
    live_il: bool
    core_set: str
    prefilter: float
    on_missing: Literal["error", "drop"]
    evaluate_every: int
    evaluate_at_most: int
    il_runs: int
    seed: int
    device: str
    precision: Precision
    threads: int
    workers: str
    tensorboard: bool | None
    wandb: str
