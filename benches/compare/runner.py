"""The run: filesystems mounted beside each other, workloads in rounds, the order rotated."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import machine
import proof
from measure import Failed, Requests, Sample, Stopwatch, in_child
from peers import Missing, Mounted, Peer, mounted
from workloads import SCALES, Place, Workload

# Rounds that are not timed: the first counts requests, and warms programs and daemons up.
_COUNTING = 0


@dataclass
class Options:
    """What the command line says."""

    directory: Path
    scale: str
    rounds: int
    latencies: list[str]
    peers: list[Peer]
    workloads: list[Workload]
    seconds: float


@dataclass
class Outcome:
    """All that a report is made of. Samples are kept by workload, latency, peer and round."""

    options: Options
    facts: dict[str, str]
    # What idle processors took to wake at the beginning, in microseconds.
    calm: int | None = field(default_factory=machine.latency)
    stopped: bool = False
    began: float = field(default_factory=time.monotonic)
    peers: list[Peer] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    proofs: dict[str, int | None] = field(default_factory=dict)
    samples: dict[tuple[str, str, str, int], Sample] = field(default_factory=dict)
    # Workloads and filesystems that were asked for fewer syncs than the workload has.
    unsynced: set[tuple[str, str]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keeps a remark for the report, once, and tells it at once."""
        if text not in self.notes:
            self.notes.append(text)
            tell(text)

    def counts(self, workload: Workload, peer: Peer) -> bool:
        """False where a rate says nothing, because the filesystem did not sync."""
        synced = peer.syncs is True and (workload.name, peer.name) not in self.unsynced
        return synced or not workload.syncs

    def timed(self, workload: str, latency: str, peer: str) -> dict[int, Sample]:
        """The samples of one cell that count, by round."""
        rounds = range(1, self.options.rounds + 1)
        keys = {number: (workload, latency, peer, number) for number in rounds}
        return {number: self.samples[key] for number, key in keys.items() if key in self.samples}

    def counted(self, workload: str, latency: str, peer: str) -> Sample | None:
        """The run of one cell in which requests were counted."""
        return self.samples.get((workload, latency, peer, _COUNTING))

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        options = self.options
        keys = ("workload", "latency", "peer", "round")
        samples = [dict(zip(keys, key)) | asdict(one) for key, one in self.samples.items()]
        return {
            "facts": self.facts,
            "scale": {"name": options.scale} | asdict(SCALES[options.scale]),
            "rounds": options.rounds,
            "peers": [
                {
                    "name": peer.name,
                    "version": self.versions[peer.name],
                    "syncs": peer.syncs,
                    "syncs seen": self.proofs.get(peer.name),
                }
                for peer in self.peers
            ],
            "workloads": [
                {"name": workload.name, "unit": f"{workload.unit}/s", "does": workload.does}
                for workload in options.workloads
            ],
            "notes": self.notes,
            "samples": samples,
        }


def run(options: Options) -> Outcome:
    """Makes all filesystems in a new directory, runs everything, and takes it all away again."""
    machine.keep_mounts_private()
    outcome = Outcome(options, machine.facts(options.directory))
    _look_at_machine(outcome)
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(_directory(options.directory))
        mounts = _mount_all(outcome, work, stack)
        if not mounts:
            return outcome
        source = work / "source"
        source.mkdir()
        tracefs = _tracefs(outcome, work, stack)
        for mount in mounts:
            _prove(outcome, mount, work)
        first = _COUNTING if tracefs else 1
        try:
            # What removes many files runs when all rounds of the others are over.
            for removes in (False, True):
                part = [one for one in options.workloads if one.removes == removes]
                for number in range(first, options.rounds + 1):
                    _round(outcome, part, mounts, source, number, tracefs)
        except KeyboardInterrupt:
            outcome.stopped = True
            outcome.notes.append("stopped before the end")
    return outcome


def tell(text: str) -> None:
    """Says something beside the report."""
    print(f"compare: {text}", file=sys.stderr, flush=True)


def _look_at_machine(outcome: Outcome) -> None:
    processors = os.cpu_count() or 1
    if os.getloadavg()[0] > 0.2 * processors:
        load = outcome.facts["load before"]
        outcome.note(f"this machine is not idle (load {load}), so these numbers are noise")


@contextlib.contextmanager
def _directory(above: Path) -> Iterator[Path]:
    """A new directory, which is removed unless something is still mounted in it."""
    work = Path(tempfile.mkdtemp(prefix="kmsfs-compare-", dir=above))
    try:
        yield work
    finally:
        left = [str(path) for path in work.glob("*/mnt") if os.path.ismount(path)]
        if left:
            tell(f"still mounted, so {work} stays: {', '.join(left)}")
        else:
            shutil.rmtree(work, ignore_errors=True)


def _mount_all(outcome: Outcome, work: Path, stack: contextlib.ExitStack) -> list[Mounted]:
    mounts = []
    for peer in outcome.options.peers:
        try:
            mount = stack.enter_context(mounted(peer, work / peer.name))
        except (Missing, OSError) as error:
            outcome.note(f"{peer.name} is left out: {error}")
            continue
        mounts.append(mount)
        outcome.peers.append(peer)
        outcome.versions[peer.name] = mount.version
    return mounts


def _tracefs(outcome: Outcome, work: Path, stack: contextlib.ExitStack) -> Path | None:
    """Where events are traced; None where the kernel has no events of FUSE."""
    where = work / "tracing"
    where.mkdir()
    there = machine.mount_tracefs(where)
    if there:
        stack.callback(machine.unmount, where, lazy=True)
    if there and (where / "events/fuse/fuse_request_send").is_dir():
        return where
    outcome.note("this kernel does not count FUSE requests (no tracepoint fuse_request_send)")
    return None


def _prove(outcome: Outcome, mount: Mounted, work: Path) -> None:
    """Sees whether a filesystem syncs, unless that is known."""
    peer = mount.peer
    if peer.syncs is not None or not peer.keeps_contents:
        return
    seen = proof.syncs_of(mount, work)
    outcome.proofs[peer.name] = seen
    if seen is None:
        outcome.note(f"{peer.name}: whether it syncs is not known, for want of strace")
        return
    peer.syncs = seen >= proof.needed()
    if not peer.syncs:
        outcome.note(
            f"{peer.name} made {seen} calls that sync for {proof.needed()} of a program:"
            " its rates are not compared where that matters"
        )


def _round(
    outcome: Outcome,
    workloads: list[Workload],
    mounts: list[Mounted],
    source: Path,
    number: int,
    tracefs: Path | None,
) -> None:
    """Some workloads, under each latency, on one filesystem after the other."""
    options = outcome.options
    for place, workload in enumerate(workloads):
        name = "counting requests" if number == _COUNTING else f"round {number} of {options.rounds}"
        passed = f"after {time.monotonic() - outcome.began:.0f} s"
        tell(f"{name}: {workload.name} ({place + 1} of {len(workloads)}), {passed}")
        # Requests do not depend on how processors sleep: they are counted once.
        latencies = options.latencies if number != _COUNTING else options.latencies[:1]
        for latency in latencies:
            turn = (number + place) % max(1, len(mounts))
            for mount in mounts[turn:] + mounts[:turn]:
                counter = tracefs if number == _COUNTING else None
                if _suits(outcome, workload, mount):
                    _one(outcome, workload, latency, mount, source, number, counter)


def _suits(outcome: Outcome, workload: Workload, mount: Mounted) -> bool:
    for program in workload.programs:
        if not shutil.which(program):
            outcome.note(f"{workload.name} is left out: {program} is not installed")
            return False
    return mount.peer.keeps_contents or not workload.keeps


def _one(
    outcome: Outcome,
    workload: Workload,
    latency: str,
    mount: Mounted,
    source: Path,
    number: int,
    tracefs: Path | None,
) -> None:
    """One run, whose sample or failure is kept."""
    options, peer = outcome.options, mount.peer
    connection = mount.connection
    requests = Requests(tracefs, connection) if tracefs and connection is not None else None
    sizes = SCALES[options.scale]
    # Both page caches, and a little.
    megabytes = 64 + (2 * sizes.big if workload.group != "programs" else 0)
    watch = Stopwatch(mount.daemon, requests, megabytes * machine.MIB)
    place = Place(mount.directory, source, sizes, watch)

    def work() -> Sample:
        workload.run(place)
        if watch.sample is None:
            raise OSError("nothing was timed")
        return watch.sample

    os.sync()
    try:
        with _latency(outcome, latency):
            sample = in_child(work, options.seconds)
    except Failed as error:
        outcome.note(f"{workload.name} failed on {peer.name}: {error}")
        return
    outcome.samples[(workload.name, latency, peer.name, number)] = sample
    if latency == "as-is" and outcome.calm is not None and (sample.latency or 0) < outcome.calm:
        if sample.holds_latency:
            outcome.note(f"{peer.name} holds {machine.LATENCY} itself while it is busy")
        else:
            outcome.note(f"somebody else held {machine.LATENCY} in runs that were to go without")
    needed = workload.syncs_each * sample.operations
    if sample.sync_requests is not None and sample.sync_requests < needed:
        outcome.unsynced.add((workload.name, peer.name))
        outcome.note(
            f"{workload.name}: {peer.name} was asked to sync {sample.sync_requests} times, and the"
            f" program did so {needed} times: its rate is not compared (without its directory, a"
            " synced file has no durable name)"
        )


@contextlib.contextmanager
def _latency(outcome: Outcome, wanted: str) -> Iterator[None]:
    """Holds the wake-up latency for everybody, or waits until nobody does."""
    if wanted == "hold":
        with machine.latency_held():
            yield
        return
    if not machine.settle_latency(outcome.calm):
        outcome.note(f"somebody holds {machine.LATENCY} all the time")
    yield
