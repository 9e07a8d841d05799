"""The filesystems that are compared: how each is made, mounted and found."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import machine
from measure import Daemon

_ROOT = Path(__file__).resolve().parent.parent.parent
_PASSWORD = "benchmark"
_MOUNT_SECONDS = 60
_END_SECONDS = 15


class Missing(Exception):
    """A filesystem that is not on this machine; the text says what to install or build."""


@dataclass
class Peer:
    """A filesystem. The methods are those of the bare directory, which has no daemon."""

    name: str = "bare"
    does: str = "the directory itself"
    encrypts: bool = False
    # False where contents are not kept: workloads that read what they wrote are left out.
    keeps_contents: bool = True
    # What a sync of a file reaches: True, or what was counted (see proof.py).
    syncs: bool | None = True

    def version(self) -> str:
        """What is measured; raises `Missing` if it is not there."""
        return ""

    def prepare(self, home: Path) -> None:
        """Makes an empty filesystem in `home`."""

    def command(self, home: Path) -> list[str]:
        """What serves `home/mnt` in the foreground; empty if nothing has to."""
        del home
        return []

    def environment(self, home: Path) -> dict[str, str]:
        """The environment of its programs: nothing of the user who runs this."""
        kept = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LC_ALL": "C"}
        return kept | {"XDG_RUNTIME_DIR": str(home)}

    def run(self, home: Path, *command: str) -> None:
        """Runs one of its programs, which gets the password on its standard input."""
        done = subprocess.run(
            command,
            input=f"{_PASSWORD}\n",
            env=self.environment(home),
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
            timeout=_MOUNT_SECONDS,
        )
        if done.returncode != 0:
            raise OSError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")


@dataclass
class Floor(Peer):
    """One of the two filesystems of benches/floor."""

    name: str = "null"
    does: str = "FUSE that answers from memory; contents are zeros"
    keeps_contents: bool = False
    syncs: bool | None = None

    def version(self) -> str:
        _executable(_floor(), "cargo build --release --example floor")
        return ""

    def command(self, home: Path) -> list[str]:
        directory = [str(home / "store")] if self.name == "passthrough" else []
        return [str(_floor()), self.name, str(home / "mnt"), *directory]


# What saves requests where one user is alone.
_FEW = "noxattr,no_default_permissions"


@dataclass
class Kmsfs(Peer):
    """This project, from `binary`."""

    name: str = "kmsfs"
    does: str = "this project"
    encrypts: bool = True
    syncs: bool | None = None
    binary: Path = field(
        default_factory=lambda: Path(
            os.environ.get("KMSFS_BIN", str(_ROOT / "target/release/kmsfs"))
        ).resolve()
    )
    options: str = ""

    def version(self) -> str:
        _executable(self.binary, "cargo build --release, or set KMSFS_BIN")
        return machine.program_output(str(self.binary), "--version")

    def command(self, home: Path) -> list[str]:
        keystore = [f"--keystore={home / 'keystore.db'}", f"--key-file={home / 'key'}"]
        mount = ["mount", "--create", "--foreground", *(["-o", self.options] if self.options else [])]
        return [str(self.binary), *keystore, *mount, str(home / "store"), str(home / "mnt")]


@dataclass
class Gocryptfs(Peer):
    """AES-256-GCM, Go."""

    name: str = "gocryptfs"
    does: str = "gocryptfs with its defaults"
    encrypts: bool = True
    syncs: bool | None = None

    def version(self) -> str:
        return _installed("gocryptfs", "-version")

    def prepare(self, home: Path) -> None:
        (home / "password").write_text(_PASSWORD)
        self.run(home, "gocryptfs", "-q", "-init", "-passfile", "password", "store")

    def command(self, home: Path) -> list[str]:
        password = ["-passfile", str(home / "password")]
        return ["gocryptfs", "-q", "-fg", *password, str(home / "store"), str(home / "mnt")]


@dataclass
class Securefs(Peer):
    """AES-256-GCM, C++."""

    name: str = "securefs"
    does: str = "securefs with its defaults"
    encrypts: bool = True
    syncs: bool | None = None

    def version(self) -> str:
        return _installed("securefs", "version")

    def prepare(self, home: Path) -> None:
        self.run(home, "securefs", "create", "--pass", _PASSWORD, "store")

    def command(self, home: Path) -> list[str]:
        password = ["--pass", _PASSWORD]
        return ["securefs", "mount", *password, str(home / "store"), str(home / "mnt")]


@dataclass
class Encfs(Peer):
    """AES-192-CBC without authentication, C++."""

    name: str = "encfs"
    does: str = "encfs --standard (contents are not authenticated)"
    encrypts: bool = True
    syncs: bool | None = None

    def version(self) -> str:
        return _installed("encfs", "--version")

    def command(self, home: Path) -> list[str]:
        options = ["--standard", "--stdinpass", "-f"]
        return ["encfs", *options, str(home / "store"), str(home / "mnt")]


@dataclass
class Cryfs(Peer):
    """XChaCha20-Poly1305 in blocks of 16 KiB, C++."""

    name: str = "cryfs"
    does: str = "cryfs with its defaults"
    encrypts: bool = True
    syncs: bool | None = None

    def version(self) -> str:
        return _installed("cryfs", "--version")

    def command(self, home: Path) -> list[str]:
        return ["cryfs", "-f", str(home / "store"), str(home / "mnt")]

    def environment(self, home: Path) -> dict[str, str]:
        quiet = {"CRYFS_FRONTEND": "noninteractive", "CRYFS_NO_UPDATE_CHECK": "true"}
        return super().environment(home) | quiet | {"CRYFS_LOCAL_STATE_DIR": str(home / "state")}


def every_peer() -> list[Peer]:
    """All that can be compared, in the order of the tables."""
    passthrough = Floor("passthrough", "FUSE that hands every request on", keeps_contents=True)
    return [
        Peer(),
        Floor(),
        passthrough,
        Kmsfs(),
        Kmsfs("kmsfs-few", f"kmsfs with -o {_FEW}", options=_FEW),
        Gocryptfs(),
        Securefs(),
        Encfs(),
        Cryfs(),
    ]


@dataclass
class Mounted:
    """A filesystem that is there: files go below `directory`."""

    peer: Peer
    directory: Path
    daemon: Daemon
    version: str

    @property
    def connection(self) -> int | None:
        """The number of its FUSE connection."""
        return None if self.daemon.pid is None else os.minor(os.stat(self.directory).st_dev)


@contextlib.contextmanager
def mounted(peer: Peer, home: Path) -> Iterator[Mounted]:
    """Makes the filesystem in the new directory `home` and mounts it; unmounts at the end.

    Raises `Missing` if it is not on this machine, `OSError` if it does not come up.
    """
    version = peer.version()
    store, mountpoint = home / "store", home / "mnt"
    for directory in (home, store, mountpoint):
        directory.mkdir()
    peer.prepare(home)
    command = peer.command(home)
    if not command:
        yield Mounted(peer, mountpoint, Daemon(), version)
        return
    with open(home / "log", "w+b") as log:
        process = subprocess.Popen(  # pylint: disable=subprocess-popen-preexec-fn
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd="/",
            env=peer.environment(home),
            start_new_session=True,
            preexec_fn=machine.end_with_parent,
        )
        try:
            _say_password(process)
            _wait_for_mount(process, mountpoint, home / "log")
            yield Mounted(peer, mountpoint, Daemon(process.pid), version)
        finally:
            _take_down(process, mountpoint)


def _say_password(process: subprocess.Popen[bytes]) -> None:
    """Those that ask for a password twice get it twice; the others do not read it."""
    with contextlib.suppress(BrokenPipeError):
        assert process.stdin is not None
        process.stdin.write(f"{_PASSWORD}\n".encode() * 2)
        process.stdin.close()


def _wait_for_mount(process: subprocess.Popen[bytes], mountpoint: Path, log: Path) -> None:
    deadline = time.monotonic() + _MOUNT_SECONDS
    while not os.path.ismount(mountpoint):
        said = log.read_text(errors="replace").strip()[-400:]
        if process.poll() is not None:
            raise OSError(f"it ended with {process.returncode}: {said}")
        if time.monotonic() > deadline:
            raise OSError(f"nothing was mounted in {_MOUNT_SECONDS} seconds: {said}")
        time.sleep(0.02)


def _take_down(process: subprocess.Popen[bytes], mountpoint: Path) -> None:
    """Unmounts and waits for the daemon; if that fails, by force."""
    for lazy in (False, True):
        if os.path.ismount(mountpoint):
            with contextlib.suppress(OSError):
                machine.unmount(mountpoint, lazy)
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
            return


def _floor() -> Path:
    built = os.environ.get("FLOOR_BIN", str(_ROOT / "target/release/examples/floor"))
    return Path(built).resolve()


def _executable(path: Path, how: str) -> None:
    if not os.access(path, os.X_OK):
        raise Missing(f"{path} is not there: {how}")


def _installed(program: str, *version: str) -> str:
    if not shutil.which(program):
        raise Missing(f"not installed: apt-get install {program}")
    package = machine.program_output("dpkg-query", "--show", "--showformat=${Version}", program)
    return package or machine.program_output(program, *version)
