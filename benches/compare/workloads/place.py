"""Where a workload works, how much it does, and what several of them need."""

from __future__ import annotations

import mmap
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import machine
from measure import Stopwatch

MIB = machine.MIB
SMALL = 4096


@dataclass(frozen=True)
class Sizes:
    """How much is done: bytes in MiB, everything else in pieces."""

    big: int
    random: int
    synced: int
    files: int
    crowd: int
    tree: int
    opens: int


SCALES = {
    "tiny": Sizes(big=4, random=64, synced=16, files=40, crowd=100, tree=20, opens=100),
    "small": Sizes(
        big=128, random=4000, synced=400, files=2000, crowd=20_000, tree=700, opens=4000
    ),
    "normal": Sizes(
        big=512, random=20_000, synced=2000, files=10_000, crowd=200_000, tree=700, opens=20_000
    ),
}


@dataclass
class Place:
    """A directory in one of the filesystems, and the stopwatch of this run.

    `source` is a directory outside of it, with what workloads bring along.
    """

    root: Path
    source: Path
    sizes: Sizes
    watch: Stopwatch
    seed: int = 1

    def timed(self, operations: int) -> AbstractContextManager[None]:
        """What is in this block is measured."""
        return self.watch.timed(operations)

    def new(self, name: str) -> Path:
        """A directory that was not there, for whoever does not want another run's files."""
        for number in range(1_000_000):
            path = self.root / f"{name}-{number}"
            try:
                path.mkdir()
                return path
            except FileExistsError:
                continue
        raise OSError(f"too many directories {name}")

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        """Something that several runs use: made at its first use, and then known to be complete."""
        path = self.root / name
        complete = self.root / f"{name}.complete"
        if not complete.exists():
            # What an interrupted run began.
            _remove(path)
            make(path)
            complete.touch()
        return path

    def big(self) -> Path:
        """A file of `sizes.big` MiB with random bytes, and its pages out on the disk."""
        return self.once("big", lambda path: write_big(path, self.sizes.big))

    def small(self) -> Path:
        """A directory with `sizes.files` files of 4 KiB, a hundred in each directory."""
        return self.once("small", lambda path: write_small(path, self.sizes.files))

    def small_names(self) -> list[Path]:
        """The names of these files."""
        return small_names(self.small(), self.sizes.files)

    def crowd(self) -> Path:
        """One directory with `sizes.crowd` empty files."""
        return self.once("crowd", lambda path: write_crowd(path, self.sizes.crowd))

    def random_offsets(self, count: int, size: int) -> list[int]:
        """Where to read or write pieces of `size` in the big file: the same in each filesystem."""
        pieces = self.sizes.big * MIB // size
        rng = random.Random(self.seed)
        return [rng.randrange(pieces) * size for _ in range(count)]

    def forget(self) -> None:
        """Has the kernel drop its caches."""
        machine.drop_caches()


@dataclass(frozen=True)
class Workload:
    """One line of the tables."""

    name: str
    group: str
    does: str
    run: Callable[[Place], None]
    # What its operations are called: the rate has the unit `unit/s`.
    unit: str = "ops"
    # It checks or uses what it wrote, so a filesystem that keeps nothing cannot run it.
    keeps: bool = False
    # Its rate depends on fsync, so a filesystem that does not sync is not compared with.
    syncs: bool = False
    # How many requests to sync each of its operations is at least, of files and of directories.
    syncs_each: int = 0
    # It removes many files, so it comes when all others are done: for minutes, ext4 looks at each of
    # their inodes before it makes another.
    removes: bool = False
    # Programs without which it is left out.
    programs: tuple[str, ...] = ()
    # Left out unless it is named.
    by_name: bool = False

    @property
    def per_gib(self) -> bool:
        """True if costs are given for each GiB, not for each operation."""
        return self.unit == "MiB"


def touched(size: int, fill: bool = True) -> mmap.mmap:
    """A buffer that is aligned and in memory; with random bytes if `fill`."""
    buffer = mmap.mmap(-1, size)
    buffer.write(os.urandom(size) if fill else bytes(size))
    buffer.seek(0)
    return buffer


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_big(path: Path, size: int) -> None:
    """Writes `size` MiB and syncs them."""
    block = touched(MIB)
    with open(path, "wb", buffering=0) as file:
        for _ in range(size):
            file.write(block)
        os.fsync(file.fileno())


def small_names(directory: Path, count: int) -> list[Path]:
    """The names that `write_small` gives."""
    return [directory / str(number // 100) / f"file-{number}" for number in range(count)]


def write_small(directory: Path, count: int) -> None:
    """Makes `count` files of 4 KiB, a hundred in each directory."""
    data = os.urandom(SMALL)
    make_folders(directory, count)
    for name in small_names(directory, count):
        write_file(name, data)


def make_folders(directory: Path, count: int) -> None:
    """The directories for `count` small files."""
    for folder in range((count + 99) // 100):
        (directory / str(folder)).mkdir(parents=True)


def write_crowd(directory: Path, count: int) -> None:
    """Makes `count` empty files in one directory."""
    directory.mkdir()
    for number in range(count):
        os.close(os.open(directory / f"entry-{number}", os.O_CREAT | os.O_WRONLY, 0o600))


def write_file(name: Path | str, data: bytes) -> None:
    """Makes a file with one write."""
    descriptor = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    os.write(descriptor, data)
    os.close(descriptor)


class Clients:
    """Processes that wait at a barrier, begin together, and are waited for."""

    def __init__(self, work: Callable[[int], None], count: int) -> None:
        context = get_context("fork")
        self._barrier: Barrier = context.Barrier(count + 1)
        self._clients = [
            context.Process(target=self._run, args=(work, number)) for number in range(count)
        ]
        for client in self._clients:
            client.start()

    def _run(self, work: Callable[[int], None], number: int) -> None:
        self._barrier.wait()
        work(number)

    def go(self) -> None:
        """Lets them begin, and returns when all have ended."""
        self._barrier.wait()
        for client in self._clients:
            client.join()
        if any(client.exitcode != 0 for client in self._clients):
            raise OSError("one of the clients failed")


def share(pieces: list[int], clients: int) -> Iterator[list[int]]:
    """Parts a list among clients."""
    for client in range(clients):
        yield pieces[client::clients]


def without_readahead(descriptor: int) -> None:
    """Tells the kernel that reads of a file are random."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
