"""Whether a filesystem syncs: what its daemon asks of the kernel when a program calls fsync.

Rates of workloads that sync mean nothing where the daemon keeps the data in memory, so those are
not compared with.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from peers import Mounted

_CALLS = 10
_SYNCS = "fsync,fdatasync,syncfs,sync_file_range,sync"
_ATTACH_SECONDS = 10


def syncs_of(mount: Mounted, scratch: Path) -> int | None:
    """How many system calls that sync the daemon makes for twenty of a program; None if unknown.

    Twenty writes are each followed by fsync or fdatasync, while strace looks at the daemon.
    """
    if mount.daemon.pid is None or not shutil.which("strace"):
        return None
    trace = scratch / f"strace-{mount.peer.name}"
    processes = [f"--attach={pid}" for pid in mount.daemon.processes()]
    command = ["strace", "-f", "-qq", f"--trace={_SYNCS}", f"--output={trace}", *processes]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as strace:
        try:
            if not _is_traced(mount.daemon.pid):
                return None
            _write_and_sync(mount.directory / "synced")
        finally:
            strace.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                strace.wait(_ATTACH_SECONDS)
            strace.kill()
    lines = trace.read_text(errors="replace").splitlines()
    return sum("sync" in line and "resumed" not in line for line in lines)


def needed() -> int:
    """How many calls of the daemon are proof."""
    return 2 * _CALLS


def _is_traced(pid: int) -> bool:
    """Waits until strace has attached to the threads of the daemon."""
    deadline = time.monotonic() + _ATTACH_SECONDS
    while time.monotonic() < deadline:
        threads = list(Path(f"/proc/{pid}/task").glob("*/status"))
        if all("TracerPid:\t0\n" not in status.read_text() for status in threads):
            return True
        time.sleep(0.05)
    return False


def _write_and_sync(path: Path) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        for number in range(_CALLS):
            for sync in (os.fsync, os.fdatasync):
                os.pwrite(descriptor, os.urandom(4096), number * 4096)
                sync(descriptor)
    finally:
        os.close(descriptor)
