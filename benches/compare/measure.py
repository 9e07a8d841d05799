"""What a workload costs: time, and what the daemon of the filesystem did meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import machine

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Failed(Exception):
    """A workload that could not be run; the text says why."""


@dataclass
class Sample:
    """One run of one workload on one filesystem. CPU and time in seconds, memory in bytes."""

    operations: int
    seconds: float
    daemon_cpu: float = 0.0
    switches: int = 0
    memory: int = 0
    requests: int | None = None
    sync_requests: int | None = None
    latency: int | None = None
    # True if the daemon has the device open by which it can ask processors to wake at once.
    holds_latency: bool = False

    @property
    def rate(self) -> float:
        """Operations in a second."""
        return self.operations / max(self.seconds, 1e-9)


@dataclass
class Use:
    """What processes have used so far."""

    cpu: float = 0.0
    switches: int = 0
    memory: int = 0


@dataclass
class Daemon:
    """The processes behind a mount: one, and all that it starts. None for a bare directory."""

    pid: int | None = None

    def processes(self) -> list[int]:
        """The daemon and its descendants."""
        if self.pid is None:
            return []
        children: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError, IndexError):
                    parent = int(_stat_fields(int(entry))[1])
                    children.setdefault(parent, []).append(int(entry))
        found, left = [], [self.pid]
        while left:
            pid = left.pop()
            found.append(pid)
            left.extend(children.get(pid, []))
        return found

    def has_open(self, path: str) -> bool:
        """True if one of its processes has this file open."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if any(os.readlink(entry) == path for entry in Path(f"/proc/{pid}/fd").iterdir()):
                    return True
        return False

    def use(self) -> Use:
        """What it has used so far, with those of its children that have ended."""
        total = Use()
        for pid in self.processes():
            with contextlib.suppress(OSError):
                fields = _stat_fields(pid)
                total.cpu += sum(int(ticks) for ticks in fields[11:15]) / _TICKS
                total.memory += int(fields[21]) * _PAGE
                total.switches += _switches(pid)
        return total


@dataclass
class Requests:
    """Counts what the kernel asks of one FUSE connection, by its tracepoint `fuse_request_send`.

    Counting costs a little of each request, so runs that are timed go without.
    """

    tracefs: Path
    connection: int
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        here = f"connection == {self.connection}"
        self.names = {"all": here, "sync": f"{here} && (opcode == 20 || opcode == 30)"}

    @contextlib.contextmanager
    def counting(self) -> Iterator[dict[str, int]]:
        """Counts within the block; the dictionary is filled when it ends."""
        counts: dict[str, int] = {}
        folder = self.tracefs / "instances"
        instances = {name: folder / f"compare-{os.getpid()}-{name}" for name in self.names}
        try:
            for name, instance in instances.items():
                instance.mkdir()
                (instance / "buffer_size_kb").write_text("16")
                event = instance / "events/fuse/fuse_request_send"
                (event / "filter").write_text(self.names[name])
                (event / "enable").write_text("1")
            yield counts
            for name, instance in instances.items():
                counts[name] = _events(instance)
        finally:
            for instance in instances.values():
                if instance.is_dir():
                    (instance / "events/enable").write_text("0")
                    instance.rmdir()


@dataclass
class Stopwatch:
    """Times the part of a workload that counts, and looks at the daemon before and after it."""

    daemon: Daemon
    requests: Requests | None = None
    memory: int = 0
    sample: Sample | None = None

    @contextlib.contextmanager
    def timed(self, operations: int) -> Iterator[None]:
        """The block is what is measured; `operations` is what it does."""
        machine.prefault(max(self.memory, machine.MIB))
        with contextlib.ExitStack() as stack:
            counts = stack.enter_context(self.requests.counting()) if self.requests else {}
            before = self.daemon.use()
            start = time.perf_counter()
            yield
            seconds = time.perf_counter() - start
            latency = machine.latency()
            after = self.daemon.use()
        self.sample = Sample(
            operations,
            seconds,
            after.cpu - before.cpu,
            max(0, after.switches - before.switches),
            after.memory,
            counts.get("all"),
            counts.get("sync"),
            latency,
            self.daemon.has_open(machine.LATENCY),
        )


def in_child(work: Callable[[], Sample], seconds: float) -> Sample:
    """Runs in a process of its own, so that nothing of it stays in this one.

    It and all that it starts are killed after `seconds`, or when this process is interrupted.
    Raises `Failed` with what went wrong.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _work_and_exit(work, writer)
    os.close(writer)
    try:
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(max(1, int(seconds)))
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
        signal.alarm(0)
    finally:
        signal.alarm(0)
        # The group is not there before the child has made it.
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    said = json.loads(answer) if answer else {"failed": "ended without an answer"}
    if "failed" in said:
        raise Failed(said["failed"])
    return Sample(**said)


def _work_and_exit(work: Callable[[], Sample], writer: int) -> None:
    """The life of the child: it never returns."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        machine.end_with_parent(signal.SIGKILL)
        answer = asdict(work())
    except BaseException as error:  # pylint: disable=broad-except
        if os.environ.get("COMPARE_TRACE"):
            traceback.print_exc()
        answer = {"failed": f"{type(error).__name__}: {error}"}
    with contextlib.suppress(OSError):
        os.write(writer, json.dumps(answer).encode())
    os._exit(0)


def _too_long(_number: int, _frame: object) -> None:
    raise Failed("took too long")


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: state, parent, ..."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text.rpartition(")")[2].split()


def _switches(pid: int) -> int:
    """How often the threads of a process gave up their processor to wait."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/task/{thread}/status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
    return total


def _events(instance: Path) -> int:
    """How many events a trace instance has seen, kept ones and overwritten ones."""
    total = 0
    for stats in instance.glob("per_cpu/cpu*/stats"):
        for line in stats.read_text().splitlines():
            if line.startswith(("entries:", "overrun:")):
                total += int(line.split()[1])
    return total
