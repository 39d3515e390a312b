"""What a run costs, in seconds and floating-point operations, by what they were spent on."""

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

COST_NAMES: Final = ("load", "score", "train", "evaluate", "il_train", "il_score")

Result = TypeVar("Result")


def count_flops(work: Callable[[], Result]) -> tuple[Result, int]:
    """Run `work` and count what its matrix products and convolutions take, forward and backward, as executed."""
    with _FlopCounter() as counter:
        result = work()
    return result, counter.flops


class Costs:
    """Seconds and FLOPs so far, by cost name. Not for use by several threads at once.

    Args:
        device: where the work runs; a CUDA device is synchronised when a charge begins and ends, and only then.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(COST_NAMES, 0.0)
        self.operations: dict[str, float] = dict.fromkeys(COST_NAMES, 0.0)
        self._device = device
        self._remembered: dict[str, int] = {}
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def charge(self, name: str) -> Iterator[None]:
        """Charge the block's wall-clock seconds to `name`; an inner charge interrupts the outer one."""
        self._settle()
        self._running.append(name)
        try:
            yield
        finally:
            self._settle()
            self._running.pop()

    def flops(self, name: str, shape: Hashable, work: Callable[[], Result]) -> Result:
        """Run `work` and charge its FLOPs to `name`.

        They are counted the first time that a `shape` is seen; later calls charge the same number and pay nothing
        for it. `shape` is whatever determines the operations: the images' shape, say, or a part's name with it.
        """
        key = f"{name} {shape}"
        if key in self._remembered:
            result = work()
        else:
            result, self._remembered[key] = count_flops(work)
        self.operations[name] += self._remembered[key]
        return result

    def add(self, name: str, *, seconds: float = 0.0, flops: float = 0.0) -> None:
        """Charge what was measured elsewhere, for instance the IL model that this run shares."""
        self.seconds[name] += seconds
        self.operations[name] += flops

    def metrics(self) -> dict[str, float]:
        """`seconds_<cost>` and `flops_<cost>`, as in `rhostream.schema.METRICS`."""
        seconds = {f"seconds_{name}": value for name, value in self.seconds.items()}
        return seconds | {f"flops_{name}": value for name, value in self.operations.items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint or JSON."""
        return {"seconds": dict(self.seconds), "flops": dict(self.operations), "remembered": dict(self._remembered)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seconds = {name: float(state["seconds"].get(name, 0.0)) for name in COST_NAMES}
        self.operations = {name: float(state["flops"].get(name, 0.0)) for name in COST_NAMES}
        self._remembered = dict(state.get("remembered", {}))

    def _settle(self) -> None:
        """Charge the time since the last edge to the innermost running charge."""
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


class _FlopCounter(TorchDispatchMode):
    """Adds up PyTorch's own formulas. Its `FlopCounterMode` does too, and imports the compiler first: seconds."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:  # in inference mode, a linear layer arrives here whole
                parts = func.decompose(*args, **kwargs or {})
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs or {})
        if formula is not None:
            self.flops += int(formula(*args, **kwargs or {}, out_val=result))
        return result
