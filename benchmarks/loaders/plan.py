"""What is measured: every loader's variants, on one core and on two, and how one measurement is run."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usage import busy_seconds

HERE = Path(__file__).parent
OURS, CEILING, STOCK = "rhostream_stream", "ceiling", "webdataset_tars PIL"
TIMEOUT = 180  # seconds
DISTURBED = 0.2  # cores that others keep busy
PATIENCE, TRIES = 10.0, 2  # seconds to wait for idle cores, and measurements to make, before a disturbed one counts


@dataclass(frozen=True, kw_only=True)
class Loader:
    """One file of `adapters`.

    Attributes:
        variants, workers: see `adapters`; `workers` by the number of cores.
    """

    name: str
    variants: tuple[str, ...]
    workers: Mapping[int, tuple[int, ...]]


_PROCESSES = {1: (0, 1), 2: (0, 1, 2)}
_HERE_ONLY = {1: (0,), 2: (0,)}
VIEWS = ("64-jpeg", "64-raw")
LOADERS = (
    Loader(name=CEILING, variants=("simplejpeg",), workers={1: (0,), 2: (2,)}),
    Loader(name=OURS, variants=("full", *VIEWS), workers=_HERE_ONLY),
    Loader(name="webdataset_tars", variants=("PIL", "simplejpeg"), workers=_PROCESSES),
    Loader(name="imagefolder", variants=("PIL", "simplejpeg"), workers=_PROCESSES),
    Loader(name="litdata_chunks", variants=("torchvision", "simplejpeg"), workers=_PROCESSES),
    Loader(name="mosaicml_streaming", variants=("PIL", "simplejpeg"), workers=_PROCESSES),
    Loader(name="hf_datasets", variants=("PIL", "simplejpeg"), workers=_PROCESSES),
    Loader(name="ffcv_beton", variants=("libjpeg-turbo",), workers={1: (1,), 2: (1, 2)}),
)
PEERS = tuple(loader.name for loader in LOADERS if loader.name not in (OURS, CEILING))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One process.

    Attributes:
        task: of `measure.py`: "rate", or "first" (of ours).
        cores: that it may use.
    """

    task: str
    loader: str
    variant: str
    cores: int
    workers: int = 0

    @property
    def name(self) -> str:
        return f"{self.loader} {self.variant}"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where and how to measure.

    Attributes:
        folder: of the corpus and its formats.
        pythons: the interpreter of each loader that needs another one.
        cores: numbers of the two cores.
        seconds: of one measurement.
    """

    folder: Path
    pythons: dict[str, str]
    cores: tuple[int, int]
    seconds: float

    def prepare(self, loader: str) -> None:
        """Write the loader's format, unless it is there."""
        target, unfinished = self.folder / loader, self.folder / f"{loader}.unfinished"
        if target.exists():
            return
        subprocess.run(["rm", "-rf", str(unfinished)], check=True)
        self._run(["prepare", loader, str(self.folder / "images"), str(unfinished)], loader, cores=2, timeout=None)
        unfinished.rename(target)

    def run(self, measurement: Measurement) -> dict[str, Any]:
        """Its result; {"error": …} where it failed. If others kept the cores busy, the least disturbed of a few."""
        results = []
        for _ in range(TRIES):
            self._wait_for_idle_cores()
            results.append(self._once(measurement))
            if results[-1].get("others", 0.0) <= DISTURBED:
                break
        return min(results, key=lambda result: result.get("others", math.inf))

    def _wait_for_idle_cores(self) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            begin, busy = time.monotonic(), busy_seconds()
            time.sleep(0.5)
            if (busy_seconds() - busy) / (time.monotonic() - begin) <= DISTURBED:
                return

    def _once(self, measurement: Measurement) -> dict[str, Any]:
        folder = str((self.folder / measurement.loader).absolute())
        arguments = ["first", measurement.variant, folder]
        if measurement.task == "rate":
            arguments = [
                "rate",
                measurement.loader,
                *arguments[1:],
                "--workers",
                str(measurement.workers),
                "--seconds",
                str(self.seconds),
            ]
        try:
            return self._run(arguments, measurement.loader, cores=measurement.cores, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return {"error": f"no result after {TIMEOUT} s"}
        except subprocess.CalledProcessError as error:
            return {"error": error.stderr.strip().splitlines()[-1] if error.stderr.strip() else str(error)}

    def _run(self, arguments: list[str], loader: str, *, cores: int, timeout: float | None) -> dict[str, Any]:
        pinned = ["taskset", "-c", ",".join(str(core) for core in self.cores[:cores])]
        python = self.pythons.get(loader, sys.executable)
        # One thread of PyTorch's own each, or it and the loaders' processes would fight for the cores.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        process = subprocess.Popen(
            [*pinned, python, str(HERE / "measure.py"), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, 9)  # its workers too
            process.wait()
            raise
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, arguments, output, errors)
        result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        return result


def measurements() -> Iterator[Measurement]:
    """All that one round measures."""
    for cores in (1, 2):
        for loader in LOADERS:
            for variant in loader.variants:
                for workers in loader.workers[cores]:
                    yield Measurement(task="rate", loader=loader.name, variant=variant, cores=cores, workers=workers)
    for variant in ("full", *VIEWS):
        yield Measurement(task="rate", loader=OURS, variant=f"{variant}+32", cores=1)
        yield Measurement(task="first", loader=OURS, variant=variant, cores=2)
