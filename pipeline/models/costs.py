"""What a run costs, in seconds, CPU-seconds and floating-point operations, by what they were spent on."""

import contextlib
import os
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from rhostream.loaders.stream import Exchange
from rhostream.schema import COST_UNITS, COSTS

COST_NAMES: Final = tuple(COSTS)

Result = TypeVar("Result")


def count_flops(work: Callable[[], Result]) -> tuple[Result, int]:
    """Run `work` and count what its matrix products and convolutions take, forward and backward, as executed."""
    with _FlopCounter() as counter:
        result = work()
    return result, counter.flops


class Costs:
    """Seconds, CPU-seconds and FLOPs so far, by cost name. For one thread, but that another may charge FLOPs to a cost
    that this one leaves alone meanwhile.

    CPU-seconds are those of this process, all its threads included, and of its child processes, living and ended. What
    threads do in the background (decoding ahead) is charged to the cost that is running meanwhile: the sum of all costs
    is exact, its parts are not quite, and what was read ahead during an evaluation counts as evaluation. What runs
    outside of all charges (writing checkpoints) is charged to none. On a GPU, CPU-seconds include waiting for it.

    Args:
        device: where the work runs; a CUDA device is synchronized when a charge begins and ends, and only then.
        children: the cost that child processes work for; they are looked at when figures are asked for.
    """

    def __init__(self, device: torch.device | None = None, *, children: str = "load") -> None:
        self.seconds: dict[str, float] = dict.fromkeys(COST_NAMES, 0.0)
        self.cpu_seconds: dict[str, float] = dict.fromkeys(COST_NAMES, 0.0)
        self.operations: dict[str, float] = dict.fromkeys(COST_NAMES, 0.0)
        self.il_runs = 1
        self._device = device
        self._remembered: dict[str, int] = {}
        self._running: list[str] = []
        self._since = self._cpu_since = 0.0
        self._children = children
        self._children_since = _children_cpu_seconds()

    @contextmanager
    def charge(self, name: str) -> Iterator[None]:
        """Charge the block's seconds and CPU-seconds to `name`; an inner charge interrupts the outer one."""
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

    def add(self, name: str, *, seconds: float = 0.0, cpu_seconds: float = 0.0, flops: float = 0.0) -> None:
        """Charge what was measured elsewhere."""
        self.seconds[name] += seconds
        self.cpu_seconds[name] += cpu_seconds
        self.operations[name] += flops

    def charge_il(self, spent: Mapping[str, Mapping[str, float]], runs: int) -> None:
        """Charge this run's share of what the IL model cost. A second call replaces the first.

        Args:
            spent: by unit and cost, as from `rhostream.pipeline.il.metadata.il_costs`.
            runs: how many share it equally.
        """
        self.il_runs = runs
        for unit, totals in self._totals().items():
            totals.update({cost: value / runs for cost, value in spent[unit].items()})

    def spent(self, name: str) -> dict[str, float]:
        """What `name` has cost so far, by unit."""
        self._settle_children()
        return {unit: totals[name] for unit, totals in self._totals().items()}

    def total(self, unit: str, names: Iterable[str]) -> float:
        """What these have cost so far together, in this unit."""
        self._settle_children()
        return sum(self._totals()[unit][name] for name in names)

    def metrics(self) -> dict[str, float]:
        """`seconds_<cost>`, `cpu_seconds_<cost>`, `flops_<cost>` and `il_runs`, as in `rhostream.schema.METRICS`."""
        self._settle_children()
        columns = {f"{unit}_{name}": value for unit, totals in self._totals().items() for name, value in totals.items()}
        return columns | {"il_runs": self.il_runs}

    def over_ranks(self, exchange: Exchange) -> "Costs":
        """What all processes of a job have spent together; these costs where there is but one."""
        if exchange.size == 1:
            return self
        self._settle_children()
        together = Costs()
        for unit, totals in together._totals().items():
            sums = exchange.sums([self._totals()[unit][name] for name in COST_NAMES])
            totals.update(zip(COST_NAMES, sums, strict=True))
        together.il_runs, together._remembered = self.il_runs, self._remembered
        return together

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint or JSON."""
        self._settle_children()
        totals = {unit: dict(values) for unit, values in self._totals().items()}
        return totals | {"il_runs": self.il_runs, "remembered": dict(self._remembered)}

    def load_state_dict(self, state: Mapping[str, Any], *, first: bool = True) -> None:
        """The inverse of `state_dict`; of the processes of a job the first one goes on with what all have spent."""
        for unit, totals in self._totals().items():
            totals.update({name: float(value) if first else 0.0 for name, value in state[unit].items()})
        self.il_runs = state["il_runs"]
        self._remembered = dict(state["remembered"])
        self._children_since = _children_cpu_seconds()

    def _totals(self) -> dict[str, dict[str, float]]:
        return dict(zip(COST_UNITS, (self.seconds, self.cpu_seconds, self.operations), strict=True))

    def _settle(self) -> None:
        """Charge the time since the last edge to the innermost running charge."""
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now, cpu = time.perf_counter(), time.process_time()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
            self.cpu_seconds[self._running[-1]] += cpu - self._cpu_since
        self._since, self._cpu_since = now, cpu

    def _settle_children(self) -> None:
        now = _children_cpu_seconds()
        if now > self._children_since:  # else one ended while it was looked at, and is found at the next look
            self.cpu_seconds[self._children] += now - self._children_since
            self._children_since = now


def _children_cpu_seconds() -> float:
    """CPU-seconds of all child processes of this one so far, ended ones first: none is counted twice."""
    times = os.times()
    total = times.children_user + times.children_system
    if not _has_children():
        return total
    import psutil  # os.times knows only children that have ended

    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            total += sum(child.cpu_times()[:4])  # user and system, its own and its ended children's
    return total


def _has_children() -> bool:
    """To look for them takes milliseconds, to ask the kernel whether there are any a microsecond."""
    if not hasattr(os, "waitid"):
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _attention_flops(query: torch.Tensor, key: torch.Tensor, *_: Any, out_val: Any, **__: Any) -> int:
    """`nn.MultiheadAttention` over (n, tokens, width) as one operation: its four projections and two products."""
    n, tokens, width = query.shape
    return 2 * n * tokens * width * (4 * width + 2 * key.shape[1])


#: Of what PyTorch has no formula for: vision transformers run so in eval mode.
_FORMULAS: Final = {torch.ops.aten._native_multi_head_attention: _attention_flops}


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
        formula = flop_registry.get(func._overloadpacket) or _FORMULAS.get(func._overloadpacket)
        if formula is None:
            with self:  # in inference mode, a linear layer arrives here whole
                parts = func.decompose(*args, **kwargs or {})
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs or {})
        if formula is not None:
            self.flops += int(formula(*args, **kwargs or {}, out_val=result))
        return result
