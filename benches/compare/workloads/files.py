"""Workloads on many small files."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from .place import (
    SMALL,
    Clients,
    Place,
    Workload,
    make_folders,
    small_names,
    write_crowd,
    write_file,
    write_small,
)

_CLIENTS = 4


def create(place: Place) -> None:
    """Makes files of 4 KiB: create, write, close."""
    directory = place.new("create")
    count = place.sizes.files
    make_folders(directory, count)
    names, data = small_names(directory, count), os.urandom(SMALL)
    with place.timed(count):
        for name in names:
            write_file(name, data)


def read_files_cold(place: Place) -> None:
    """Reads each of them, with nothing cached."""
    names = place.small_names()
    place.forget()
    with place.timed(len(names)):
        for name in names:
            _open_read_close(name)


def stat(cold: bool) -> Callable[[Place], None]:
    """Asks for the attributes of each."""

    def run(place: Place) -> None:
        names = place.small_names()
        _warm_or_cold(place, cold, lambda: [os.stat(name) for name in names])
        with place.timed(len(names)):
            for name in names:
                os.stat(name)

    return run


def find(cold: bool) -> Callable[[Place], None]:
    """Walks through the tree by `find -size`, which looks at each file."""

    def run(place: Place) -> None:
        command = ["find", str(place.small()), "-size", "+1G"]
        _warm_or_cold(place, cold, lambda: _program(command))
        with place.timed(place.sizes.files):
            _program(command)

    return run


def list_crowd(cold: bool) -> Callable[[Place], None]:
    """Lists one large directory by `ls -l`."""

    def run(place: Place) -> None:
        command = ["ls", "-l", str(place.crowd())]
        _warm_or_cold(place, cold, lambda: _program(command))
        with place.timed(place.sizes.crowd):
            _program(command)

    return run


def create_crowd(place: Place) -> None:
    """Makes empty files in one large directory."""
    directory = place.new("crowd") / "entries"
    with place.timed(place.sizes.crowd):
        write_crowd(directory, place.sizes.crowd)
    shutil.rmtree(directory)


def remove(place: Place) -> None:
    """Removes a tree of small files by `rm -rf`."""
    directory = place.new("remove") / "tree"
    write_small(directory, place.sizes.files)
    with place.timed(place.sizes.files):
        _program(["rm", "-rf", str(directory)])


def open_in_turn(count: int) -> Callable[[Place], None]:
    """Opens, reads and closes `count` files again and again."""

    def run(place: Place) -> None:
        names = place.small_names()[:count]
        for name in names:
            _open_read_close(name)
        with place.timed(place.sizes.opens):
            for number in range(place.sizes.opens):
                _open_read_close(names[number % len(names)])

    return run


def parallel(place: Place) -> None:
    """Four clients make, read, rename and remove small files, each in a directory of its own."""
    directory = place.new("parallel")
    each = place.sizes.files // _CLIENTS
    data = os.urandom(SMALL)

    def work(number: int) -> None:
        own = directory / str(number)
        own.mkdir()
        for file in range(each):
            name, final = own / f"new-{file}", own / f"file-{file}"
            write_file(name, data)
            os.rename(name, final)
            _open_read_close(final)
            if file % 2:
                os.unlink(final)

    clients = Clients(work, _CLIENTS)
    with place.timed(each * _CLIENTS):
        clients.go()


def _warm_or_cold(place: Place, cold: bool, warm: Callable[[], object]) -> None:
    if cold:
        place.forget()
    else:
        warm()


def _open_read_close(name: Path) -> None:
    descriptor = os.open(name, os.O_RDONLY)
    os.read(descriptor, SMALL)
    os.close(descriptor)


def _program(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)


_GROUP = "small files"

WORKLOADS = [
    Workload("create", _GROUP, "create, write 4 KiB, close", create, "files"),
    Workload(
        "read-files-cold", _GROUP, "open, read, close each file, cold", read_files_cold, "files"
    ),
    Workload("stat-cold", _GROUP, "stat each, cold", stat(cold=True), "files"),
    Workload("stat-warm", _GROUP, "stat each once more", stat(cold=False), "files"),
    Workload("find-cold", _GROUP, "find -size, cold", find(cold=True), "files"),
    Workload("find-warm", _GROUP, "find -size once more", find(cold=False), "files"),
    Workload(
        "crowd-create",
        _GROUP,
        "create empty files in one large directory",
        create_crowd,
        "files",
        removes=True,
    ),
    Workload(
        "crowd-ls-cold", _GROUP, "ls -l of a large directory, cold", list_crowd(cold=True), "files"
    ),
    Workload(
        "crowd-ls-warm",
        _GROUP,
        "ls -l of a large directory, once more",
        list_crowd(cold=False),
        "files",
    ),
    Workload("remove", _GROUP, "rm -rf", remove, "files", removes=True),
    Workload("open-one", _GROUP, "open, read, close the same file", open_in_turn(1)),
    Workload("open-200", _GROUP, "open, read, close 200 files in turn", open_in_turn(200)),
    Workload("parallel-4", _GROUP, "4 clients create, rename, read, remove", parallel, "files"),
]
