"""Units of work made by actors of a Ray cluster: one that is there (`RAY_ADDRESS`), or one of this machine alone."""

import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import Any, Final, TypeVar

import ray
import ray.exceptions

from rhostream import __version__
from rhostream.errors import ConfigError, RhostreamError, WorkerError
from rhostream.loaders.decode import available_cores
from rhostream.loaders.storage import write_apart
from rhostream.pipeline.jobs.lock import hold_as_worker
from rhostream.pipeline.jobs.maker import Advance, Maker, Numbered, StoppedError
from rhostream.pipeline.jobs.processes import IN_FLIGHT

_LOG = logging.getLogger(__name__)

Unit = TypeVar("Unit", bound=Numbered)
Record = TypeVar("Record")

_TRIES: Final = 4  # of a unit whose workers die
_AT_BEGINNING: Final = -1  # in the place of a unit
_SECONDS_BETWEEN_REPORTS: Final = 0.5
_SECONDS_TO_STOP: Final = 20.0
_SECONDS_TO_ANSWER: Final = 5.0
_SECONDS_BETWEEN_CHECKS: Final = 2.0
#: For how long the head may be away, as it may come back. After 60 s Ray ends this process.
_SECONDS_WITHOUT_HEAD: Final = 40.0
_STORE_BYTES: Final = 128 << 20  # of a cluster of our own: units and records are small
_MADE_BY: Final = "tell"  # the concurrency group that answers while a unit is made


def make_on_ray(
    maker: Maker[Unit, Record], units: Iterable[Unit], *, workers: int | None, advance: Advance
) -> Iterator[tuple[int, Record]]:
    """(number, record) of every unit, as they become ready.

    A unit whose actor dies is made again by another one.

    Args:
        workers: actors; None takes one per core of the cluster (or GPU, where the maker uses one).

    Raises:
        ConfigError: no cluster answers at `RAY_ADDRESS`, or its machines have no rhostream, or another version.
        WorkerError: a unit has ended several actors, one after the other.
        RhostreamError: Ray itself has failed, or died on this machine. Errors of the maker come as they are.
    """
    with _cluster(workers) as resources:
        on_gpu = maker.gpus and resources.get("GPU", 0) >= 1
        most = workers or int(resources["GPU" if on_gpu else "CPU"]) or 1
        rest = iter(units)
        first = list(islice(rest, IN_FLIGHT * most))
        crew = _Crew(maker, gpus=1 if on_gpu else 0, advance=advance, services=_Services())
        try:
            yield from crew.make(chain(first, rest), min(most, len(first)))
        except ray.exceptions.RayError as error:
            raise RhostreamError(
                f"the Ray cluster failed ({_first_line(error)}): run the same command again, it goes on where it "
                "stopped"
            ) from error
        finally:
            crew.end()


class _Actor:
    """Makes units in a process of the cluster, and tells meanwhile how far it is."""

    def __init__(self) -> None:
        self._make: Any = None
        self._unit, self._done, self._stopped = -1, 0, False

    def begin(self, maker: Maker[Any, Any], number: int) -> None:
        """Called first. Not by the constructor, whose errors Ray would tell as a death."""
        write_apart(secrets.token_hex(6))
        hold_as_worker(maker.workspace, maker.folder)
        self._make = maker.begin(number)

    def make(self, unit: Any) -> tuple[int, Any]:
        """How much was done, and the record; None where another unit's failure has stopped it."""
        self._unit, self._done = unit.number, 0
        try:
            record = self._make(unit, self._advance)
        except StoppedError:
            return 0, None
        return self._done, record

    def progress(self) -> tuple[int, int]:
        """Number of the unit in work, and how much of it is done."""
        return self._unit, self._done

    def stop(self) -> None:
        """Leave the unit in work unfinished."""
        self._stopped = True

    def _advance(self, count: int) -> None:
        if self._stopped:
            raise StoppedError
        self._done += count


class _Member:
    """An actor of the crew, the units that it has been given, the first one first, and what it has told of them."""

    def __init__(self, actor: Any, number: int) -> None:
        self.actor, self.number = actor, number
        self.has_begun = False
        self.units: list[Any] = []
        self.told: tuple[int, int] = (-1, 0)
        self.asked: Any = None


class _Services:
    """The processes of Ray that this one speaks to. Some seconds after their death Ray ends this process, unheard."""

    def __init__(self) -> None:
        here = ray.get_runtime_context().get_node_id()
        node = next(node for node in ray.nodes() if node["NodeID"] == here)
        self._node = node["NodeManagerAddress"], int(node["NodeManagerPort"])
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        self._head = host.strip("[]"), int(port)
        self._checked = self._heard = time.monotonic()

    def require(self) -> None:
        """Look for them now and then.

        Raises:
            RhostreamError: that of this machine is dead, or that of the head has not answered for long.
        """
        now = time.monotonic()
        if now < self._checked + _SECONDS_BETWEEN_CHECKS:
            return
        self._checked = now
        goes_on = "run the same command again, it goes on where it stopped"
        if not _answers(*self._node):
            raise RhostreamError(
                f"Ray has died on this machine, nothing answers at {self._node[0]}:{self._node[1]}: {goes_on}; with "
                "fewer --workers if memory is short"
            )
        if _answers(*self._head):
            self._heard = now
        elif now > self._heard + _SECONDS_WITHOUT_HEAD:
            raise RhostreamError(
                f"the head of the Ray cluster, {self._head[0]}:{self._head[1]}, has not answered for "
                f"{now - self._heard:.0f} s: once it is there again, {goes_on}"
            )


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_SECONDS_TO_ANSWER):
            return True
    except OSError:
        return False


class _Crew:
    """Actors that make units, replaced where they die."""

    def __init__(self, maker: Maker[Any, Any], *, gpus: int, advance: Advance, services: _Services) -> None:
        self._services = services
        self._advance, self._kind = advance, ray.remote(concurrency_groups={_MADE_BY: 1})(_Actor)
        self._kind = self._kind.options(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)
        self._maker = ray.put(maker)
        self._members: list[_Member] = []
        self._pending: dict[Any, tuple[_Member, Any]] = {}  # and the unit; None for a beginning
        self._failures: Counter[int] = Counter()

    def make(self, units: Iterable[Any], count: int) -> Iterator[tuple[int, Any]]:
        waiting = iter(units)
        left: deque[Any] = deque()  # units of actors that have died, and the next of those that wait

        def is_any_left() -> bool:
            if not left:
                left.extend(islice(waiting, 1))
            return bool(left)

        def give() -> None:
            # To none that has not begun: on a cluster that has no room for it, it may never begin.
            for _ in range(IN_FLIGHT):
                for member in self._members:
                    if member.has_begun and len(member.units) < IN_FLIGHT and is_any_left():
                        self._give(member, left.popleft())

        for number in range(count):
            self._hire(number)
        while is_any_left() or any(member.units for member in self._members):
            ready, _ = ray.wait(list(self._pending), timeout=_SECONDS_BETWEEN_REPORTS)
            self._services.require()
            self._report()
            for reference in ready:
                if reference not in self._pending:
                    continue  # given up with its actor
                member, unit = self._pending.pop(reference)
                try:
                    found = ray.get(reference)
                except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
                    left.extendleft(reversed(self._replace(member, error)))
                    give()
                    continue
                except ray.exceptions.RayTaskError as error:
                    self._stop()
                    raise error.cause from None
                if unit is None:
                    member.has_begun = True
                    self._failures.pop(_AT_BEGINNING, None)
                    give()
                    continue
                # An actor may end its units in another order than it was given them.
                member.units.remove(unit)
                done, record = found
                self._advance(done - self._taken_back(member, unit))
                give()
                yield unit.number, record

    def end(self) -> None:
        """Without a trace: what they are at is left unfinished."""
        for member in self._members:
            ray.kill(member.actor)
        self._members = []

    def _hire(self, number: int) -> None:
        member = _Member(self._kind.remote(), number)
        self._members.append(member)
        self._pending[member.actor.begin.remote(self._maker, number)] = member, None

    def _give(self, member: _Member, unit: Any) -> None:
        member.units.append(unit)
        self._pending[member.actor.make.remote(unit)] = member, unit

    def _replace(self, member: _Member, error: Exception) -> list[Any]:
        """Another actor in the place of one that has died; what that one had to do comes back.

        Raises:
            WorkerError: the unit that it was at has ended others before.
        """
        self._pending = {reference: told for reference, told in self._pending.items() if told[0] is not member}
        self._members.remove(member)
        left = list(member.units)
        if left:
            self._advance(-self._taken_back(member, left[0]))
        elif member.has_begun:  # it had done all that it was given
            return []
        at = left[0].number if member.has_begun else _AT_BEGINNING
        self._failures[at] += 1
        if self._failures[at] >= _TRIES:
            place = f"unit {at}" if member.has_begun else "their beginning"
            raise WorkerError(
                f"{_TRIES} actors have died at {place}, one after the other ({_first_line(error)}): run the same "
                "command again, it goes on where it stopped; with fewer --workers if memory is short"
            ) from error
        _LOG.warning("an actor of the Ray cluster has died (%s): another one makes its units", _first_line(error))
        self._hire(member.number)
        return left

    def _report(self) -> None:
        """Take in what actors have told, and ask them again."""
        for member in self._members:
            if member.asked is not None and ray.wait([member.asked], timeout=0)[0]:
                asked, member.asked = member.asked, None
                with suppress(ray.exceptions.RayError):
                    unit, done = ray.get(asked)
                    if member.units and unit == member.units[0].number:
                        self._advance(done - self._taken_back(member, member.units[0]))
                        member.told = (unit, done)
            if member.asked is None:
                member.asked = member.actor.progress.options(concurrency_group=_MADE_BY).remote()

    @staticmethod
    def _taken_back(member: _Member, unit: Any) -> int:
        """What was told of the unit so far. What was told of another one stays: that one is still in work."""
        number, done = member.told
        if number != unit.number:
            return 0
        member.told = (-1, 0)
        return done

    def _stop(self) -> None:
        """Have the others leave their units unfinished, in good order."""
        begun = [member for member in self._members if member.has_begun]
        ends = [member.actor.stop.options(concurrency_group=_MADE_BY).remote() for member in begun]
        ends += [reference for reference, (member, _) in self._pending.items() if member.has_begun]
        ray.wait(ends, num_returns=len(ends), timeout=_SECONDS_TO_STOP)


@contextmanager
def _cluster(workers: int | None) -> Iterator[Mapping[str, float]]:
    """What the cluster has: the one that this process has joined, that of `RAY_ADDRESS`, or one of our own."""
    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    address = os.environ.get("RAY_ADDRESS", "")
    with _without_notes():
        with _handlers_kept(), _without_warnings():
            if address:
                _join(address)
            else:
                _start_own(workers)
        try:
            resources = ray.cluster_resources()
            if address:
                require_same_package(_packages())
            yield resources
        finally:
            ray.shutdown()


def _join(address: str) -> None:
    try:
        ray.init(address, log_to_driver=False, configure_logging=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError, OSError, ray.exceptions.RayError) as error:
        raise ConfigError(
            f"RAY_ADDRESS={address}: cannot join a Ray cluster there ({_first_line(error)}): correct it, or unset it "
            "to start a cluster on this machine"
        ) from error


def _start_own(workers: int | None) -> None:
    """Reached from this machine alone, and by who knows a token that is not kept."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # as local processes have it
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray keeps one in the home folder
    try:
        with _loopback_alone():
            ray.init(
                "local",
                num_cpus=workers or available_cores(),
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                log_to_driver=False,
                configure_logging=False,
                logging_level="error",
                _node_ip_address="127.0.0.1",
            )
    except (ConnectionError, ValueError, RuntimeError, OSError, ray.exceptions.RayError) as error:
        raise RhostreamError(
            f"a Ray cluster cannot be started on this machine ({_first_line(error)}): use --engine local, or name a "
            "cluster with RAY_ADDRESS"
        ) from error


@contextmanager
def _loopback_alone() -> Iterator[None]:
    """A cluster that begins within the block binds to loopback, and the address of its node is that: Ray has this for
    systems whose firewall would ask, and elsewhere takes 127.0.0.1 for the machine's address and binds to all."""
    constants, name = ray._private.ray_constants, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    before, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
    of_children, os.environ[name] = os.environ.get(name), "0"
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        if of_children is None:
            del os.environ[name]
        else:
            os.environ[name] = of_children


@contextmanager
def _without_notes() -> Iterator[None]:
    """Ray would write of dead processes to stdout, which is ours to write results to; for that it has no setting."""
    before = ray._private.worker._worker_logs_enabled
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        ray._private.worker._worker_logs_enabled = before


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Of Ray's coming defaults, and of how it is protected."""
    log = logging.getLogger("ray")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it begins."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _packages() -> dict[str, tuple[str, str]]:
    """Versions of Python and rhostream on each machine of the cluster; no rhostream is ""."""

    def package() -> tuple[str, str]:  # pickled by value, as it is local: who has no rhostream can run it
        import sys

        try:
            import rhostream
        except ImportError:
            return f"{sys.version_info[0]}.{sys.version_info[1]}", ""
        return f"{sys.version_info[0]}.{sys.version_info[1]}", rhostream.__version__

    there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    asked = {
        node["NodeManagerAddress"]: ray.remote(package)
        .options(num_cpus=0, scheduling_strategy=there(node["NodeID"], soft=False))
        .remote()
        for node in ray.nodes()
        if node["Alive"]
    }
    return {node: ray.get(answer) for node, answer in asked.items()}


def require_same_package(found: Mapping[str, tuple[str, str]]) -> None:
    """Raises ConfigError where a machine of the cluster has no rhostream, or another one than this.

    Args:
        found: machine to versions of Python and rhostream, the latter "" where there is none.
    """
    here = f"{sys.version_info[0]}.{sys.version_info[1]}", __version__
    if other := sorted((node, told) for node, told in found.items() if told != here):
        node, (python, package) = other[0]
        has = f"rhostream {package} on Python {python}" if package else "no rhostream"
        raise ConfigError(
            f"{len(other)} of {len(found)} machines of the Ray cluster, for instance {node}, have {has}, this one has "
            f"rhostream {here[1]} on Python {here[0]}: install the same on all of them"
        )


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
