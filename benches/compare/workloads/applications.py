"""Workloads of programs that people run."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

from .place import Place, Workload, write_file
from .tree import write_archive

_MAIL_SIZE = 3000
_WARM_RUNS = 5


def untar(place: Place) -> None:
    """Unpacks an archive of a tree like a program's source."""
    archive = _archive(place)
    target = place.new("untar")
    with place.timed(place.sizes.tree):
        _unpack(archive, target)


def tar_cold(place: Place) -> None:
    """Packs the tree, with nothing cached."""
    tree = _tree(place)
    place.forget()
    with place.timed(place.sizes.tree):
        # To /dev/null itself tar would not read the files.
        with subprocess.Popen(
            ["tar", "-C", str(tree), "-cf", "-", "."], stdout=subprocess.PIPE
        ) as packing:
            assert packing.stdout is not None
            while packing.stdout.read(1 << 20):
                pass
        if packing.returncode != 0:
            raise OSError("tar failed")


def git_commit(place: Place) -> None:
    """Adds the tree to a new repository and commits it."""
    target = place.new("git")
    _unpack(_archive(place), target)
    with place.timed(place.sizes.tree):
        _commit(target)


def git_status(cold: bool) -> Callable[[Place], None]:
    """Asks for the state of a repository in which nothing changed."""

    def run(place: Place) -> None:
        repository = place.once("repository", lambda path: _make_repository(place, path))
        # The first run may write the index.
        _git(repository, "status")
        runs = 1 if cold else _WARM_RUNS
        if cold:
            place.forget()
        with place.timed(runs):
            for _ in range(runs):
                _git(repository, "status")

    return run


def maildir(place: Place) -> None:
    """Delivers mail: a file in tmp/, fsync, rename to new/, fsync of new/."""
    box = place.new("maildir")
    for name in ("tmp", "new", "cur"):
        (box / name).mkdir()
    mail = os.urandom(_MAIL_SIZE)
    arrived = os.open(box / "new", os.O_RDONLY | os.O_DIRECTORY)
    with place.timed(place.sizes.synced):
        for number in range(place.sizes.synced):
            new = box / "tmp" / str(number)
            write_file(new, mail)
            descriptor = os.open(new, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            os.rename(new, box / "new" / str(number))
            os.fsync(arrived)
    os.close(arrived)


def sqlite(mode: str) -> Callable[[Place], None]:
    """Inserts one row in each transaction, with synchronous=FULL."""

    def run(place: Place) -> None:
        path = place.new(f"sqlite-{mode}") / "database"
        row = os.urandom(100)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            # SQLite says what it does: these are answers, not wishes.
            _expect(database.execute(f"PRAGMA journal_mode={mode}"), mode)
            database.execute("PRAGMA synchronous=FULL")
            _expect(database.execute("PRAGMA synchronous"), 2)
            database.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, bytes BLOB)")
            with place.timed(place.sizes.synced):
                for number in range(place.sizes.synced):
                    database.execute("INSERT INTO rows VALUES (?, ?)", (number, row))
            _expect(database.execute("SELECT count(*) FROM rows"), place.sizes.synced)

    return run


def cargo_build(place: Place) -> None:
    """Builds a small crate without dependencies."""
    crate = place.new("crate")
    (crate / "src").mkdir()
    (crate / "Cargo.toml").write_text('[package]\nname = "tiny"\nedition = "2021"\n')
    modules = [f"part{number}" for number in range(20)]
    for module in modules:
        body = "".join(f"pub fn f{n}(x: u64) -> u64 {{ x * {n} + 1 }}\n" for n in range(50))
        (crate / "src" / f"{module}.rs").write_text(body)
    calls = " + ".join(f"{module}::f7(1)" for module in modules)
    main = "".join(f"mod {module};\n" for module in modules)
    main = f'#![allow(dead_code)]\n{main}fn main() {{ println!("{{}}", {calls}); }}\n'
    (crate / "src/main.rs").write_text(main)
    # The user's own toolchain and settings, but nothing of another build.
    environment = {key: text for key, text in os.environ.items() if key != "CARGO_TARGET_DIR"}
    with place.timed(1):
        subprocess.run(
            ["cargo", "build", "--quiet", "--offline"], cwd=crate, env=environment, check=True
        )


def _expect(cursor: sqlite3.Cursor, wanted: str | int) -> None:
    (said,) = cursor.fetchone()
    if said != wanted:
        raise OSError(f"SQLite says {said}, not {wanted}")


def _archive(place: Place) -> Path:
    """The archive, outside of the filesystem, in the page cache."""
    archive = place.source / "tree.tar"
    if not archive.exists():
        unfinished = archive.with_suffix(".new")
        write_archive(unfinished, place.sizes.tree, place.seed)
        unfinished.rename(archive)
    archive.read_bytes()
    return archive


def _tree(place: Place) -> Path:
    def make(path: Path) -> None:
        path.mkdir()
        _unpack(_archive(place), path)

    return place.once("tree", make)


def _make_repository(place: Place, path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    _unpack(_archive(place), path)
    _commit(path)


def _commit(directory: Path) -> None:
    _git(directory, "init", "--quiet")
    _git(directory, "add", "--all")
    _git(directory, "commit", "--quiet", "--message=first")


def _git(directory: Path, *arguments: str) -> None:
    roles, parts = ("AUTHOR", "COMMITTER"), ("NAME", "EMAIL")
    who = {f"GIT_{role}_{part}": "compare@localhost" for role in roles for part in parts}
    nothing = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent"}
    subprocess.run(
        ["git", "-c", "gc.auto=0", "-c", "maintenance.auto=false", *arguments],
        cwd=directory,
        env=environment | who | nothing,
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        check=True,
    )


def _unpack(archive: Path, target: Path) -> None:
    subprocess.run(["tar", "-C", str(target), "-xf", str(archive)], check=True)


_GROUP = "programs"

WORKLOADS = [
    Workload("untar", _GROUP, "unpack a source tree", untar, "files"),
    Workload("tar-cold", _GROUP, "pack a source tree, cold", tar_cold, "files"),
    Workload(
        "git-commit",
        _GROUP,
        "git init, add, commit",
        git_commit,
        "files",
        keeps=True,
        programs=("git",),
    ),
    Workload(
        "git-status-cold",
        _GROUP,
        "git status, cold",
        git_status(cold=True),
        "runs",
        keeps=True,
        programs=("git",),
    ),
    Workload(
        "git-status-warm",
        _GROUP,
        "git status, once more",
        git_status(cold=False),
        "runs",
        keeps=True,
        programs=("git",),
    ),
    Workload(
        "maildir",
        _GROUP,
        "deliver mail, each synced",
        maildir,
        "mails",
        syncs=True,
        syncs_each=2,
    ),
    Workload(
        "sqlite-wal",
        _GROUP,
        "SQLite, a row in each transaction, WAL, FULL",
        sqlite("wal"),
        "commits",
        keeps=True,
        syncs=True,
        syncs_each=1,
    ),
    Workload(
        "sqlite-rollback",
        _GROUP,
        "SQLite, a row in each transaction, rollback journal, FULL",
        sqlite("delete"),
        "commits",
        keeps=True,
        syncs=True,
        # The journal, its header, its directory, and the database.
        syncs_each=4,
    ),
    Workload(
        "cargo-build",
        _GROUP,
        "cargo build of a small crate (only if named)",
        cargo_build,
        "runs",
        keeps=True,
        programs=("cargo",),
        by_name=True,
    ),
]
