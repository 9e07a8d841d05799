"""Workloads on the contents of one large file: in a row, and at random places."""

from __future__ import annotations

import os
from collections.abc import Callable

from .place import (
    MIB,
    SMALL,
    Clients,
    Place,
    Workload,
    share,
    touched,
    without_readahead,
    write_big,
)

_RECORD = 200
_DATABASE_PAGE = 8192
_LARGE_PAGE = 16_384


def write(place: Place) -> None:
    """Writes a new file, 1 MiB a call, and syncs it."""
    target = place.new("write") / "file"
    block = touched(MIB)
    with place.timed(place.sizes.big), open(target, "wb", buffering=0) as file:
        for _ in range(place.sizes.big):
            file.write(block)
        os.fsync(file.fileno())
    target.unlink()


def read_cold(place: Place) -> None:
    """Reads it, 1 MiB a call, with nothing cached."""
    big = place.big()
    place.forget()
    with place.timed(place.sizes.big):
        _read_all(place, big)


def read_again(place: Place) -> None:
    """Opens and reads it once more, when all of it was just read."""
    big = place.big()
    _read_all(place, big)
    with place.timed(place.sizes.big):
        _read_all(place, big)


def _read_all(place: Place, path: os.PathLike[str]) -> None:
    block = touched(MIB, fill=False)
    with open(path, "rb", buffering=0) as file:
        count = 0
        while read := file.readinto(block):
            count += read
    if count != place.sizes.big * MIB:
        raise OSError(f"read {count} bytes")


def random_read(clients: int) -> Callable[[Place], None]:
    """Reads 4 KiB at random places, with nothing cached."""

    def run(place: Place) -> None:
        big = place.big()
        shares = list(share(place.random_offsets(place.sizes.random, SMALL), clients))

        def read(number: int) -> None:
            descriptor = os.open(big, os.O_RDONLY)
            without_readahead(descriptor)
            block = [touched(SMALL, fill=False)]
            for offset in shares[number]:
                os.preadv(descriptor, block, offset)
            os.close(descriptor)

        workers = Clients(read, clients) if clients > 1 else None
        place.forget()
        with place.timed(place.sizes.random):
            if workers:
                workers.go()
            else:
                read(0)

    return run


def overwrite(size: int, every: int) -> Callable[[Place], None]:
    """Writes over pieces of `size` at random places, cold; syncs after `every`, if 0 at the end."""

    def run(place: Place) -> None:
        big = place.once("overwritten", lambda path: write_big(path, place.sizes.big))
        count = place.sizes.synced if every == 1 else place.sizes.random
        offsets = place.random_offsets(count, size)
        block = touched(size)
        place.forget()
        descriptor = os.open(big, os.O_RDWR)
        with place.timed(count):
            for number, offset in enumerate(offsets, 1):
                os.pwrite(descriptor, block, offset)
                if every and number % every == 0:
                    os.fdatasync(descriptor)
            if every != 1:
                os.fsync(descriptor)
        os.close(descriptor)

    return run


def append(synced: bool) -> Callable[[Place], None]:
    """Appends lines of 200 bytes to a log, each synced or none."""

    def run(place: Place) -> None:
        count = place.sizes.synced if synced else place.sizes.random
        log = os.open(place.new("log") / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        line = os.urandom(_RECORD // 2).hex().encode()
        with place.timed(count):
            for _ in range(count):
                os.write(log, line)
                if synced:
                    os.fsync(log)
        os.close(log)

    return run


WORKLOADS = [
    Workload("write", "in a row", "write 1 MiB a call, fsync", write, "MiB", syncs=True),
    Workload("read-cold", "in a row", "read 1 MiB a call, cold", read_cold, "MiB"),
    Workload("read-again", "in a row", "open and read what was just read", read_again, "MiB"),
    Workload("random-read", "at random", "read 4 KiB, cold", random_read(1)),
    Workload("random-read-4", "at random", "read 4 KiB by 4 clients, cold", random_read(4)),
    Workload("overwrite", "at random", "overwrite 4 KiB, cold; one fsync", overwrite(SMALL, 0)),
    Workload(
        "overwrite-sync-32",
        "at random",
        "overwrite 4 KiB, cold; fdatasync after 32",
        overwrite(SMALL, 32),
        syncs=True,
    ),
    Workload(
        "overwrite-sync",
        "at random",
        "overwrite 4 KiB, cold; fdatasync after each",
        overwrite(SMALL, 1),
        syncs=True,
        syncs_each=1,
    ),
    Workload(
        "overwrite-16k", "at random", "overwrite 16 KiB, cold; one fsync", overwrite(_LARGE_PAGE, 0)
    ),
    Workload(
        "database-8k",
        "at random",
        "overwrite 8 KiB as PostgreSQL does, fdatasync after each",
        overwrite(_DATABASE_PAGE, 1),
        syncs=True,
        syncs_each=1,
    ),
    Workload("append", "at random", "append 200 bytes", append(synced=False)),
    Workload(
        "append-sync",
        "at random",
        "append 200 bytes, fsync after each",
        append(synced=True),
        syncs=True,
        syncs_each=1,
    ),
]
