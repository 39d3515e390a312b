"""What settings of several stages have in common: attributes of `rhostream.pipeline.config.definition.Setting`."""

from typing import Any, Final

DEVICE: Final[dict[str, Any]] = {
    "variable": "RHO_DEVICE",
    "metavar": "[auto|cpu|cuda|cuda:N]",
    "pattern": r"auto|cpu|cuda(:\d+)?",
    "form": "choose auto, cpu, cuda or cuda:N",
    "help": "Where the model runs; auto takes CUDA where there is one.",
}
WORKERS: Final[dict[str, Any]] = {
    "variable": "RHO_WORKERS",
    "minimum": 0,
    "metavar": "N",
    "help": "Local worker processes; 0 works in this one. The result is the same for any number.",
}
IL_NAME: Final[dict[str, Any]] = {"variable": "RHO_IL", "metavar": "NAME"}

#: Names that are folders of a workspace.
NAME: Final = r"(?!\.)(?!.*\.parquet$)[A-Za-z0-9._-]*"
NAME_FORM: Final = "use letters, digits, '.', '_' and '-', without a dot in front or '.parquet' at the end"
