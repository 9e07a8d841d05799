"""The machine under the benchmark: root, mounts, caches, the wake-up latency of idle processors."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
LATENCY = "/dev/cpu_dma_latency"

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS = 0x0002_0000
_MS_REC, _MS_PRIVATE = 0x4000, 0x4_0000
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_MADV_POPULATE_WRITE = 23
_SETTLE_SECONDS = 5.0


def has_root() -> bool:
    """True if this process may mount and drop caches."""
    return os.geteuid() == 0


def keep_mounts_private() -> None:
    """Gives this process a mount table of its own: whatever ends it, its mounts end with it."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _check(_libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "mount /")


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """In a child: have the kernel send this signal when the parent is gone."""
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def mount_tracefs(where: Path) -> bool:
    """Mounts the kernel's event tracing; false if the kernel has none."""
    mounted: int = _libc.mount(b"tracefs", os.fsencode(where), b"tracefs", 0, None)
    return mounted == 0


def unmount(mountpoint: Path, lazy: bool = False) -> None:
    """Unmounts; `lazy` also takes away what is in use."""
    flags = _MNT_DETACH if lazy else 0
    _check(_libc.umount2(os.fsencode(mountpoint), flags), f"unmount {mountpoint}")


def drop_caches() -> None:
    """Writes everything out and has the kernel forget pages, names and attributes."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def prefault(size: int) -> None:
    """Touches this many bytes and gives them back.

    A virtual machine may have returned free memory to its host, and the next first touch costs
    seconds per GiB. After this, what the kernel caches goes into memory that is there.
    """
    with mmap.mmap(-1, size) as memory:
        try:
            memory.madvise(_MADV_POPULATE_WRITE)
        except OSError:
            for page in range(0, size, mmap.PAGESIZE):
                memory[page] = 1


@contextlib.contextmanager
def latency_held() -> Iterator[None]:
    """Has idle processors wake at once: while this is held, they poll instead of sleeping."""
    descriptor = os.open(LATENCY, os.O_WRONLY)
    try:
        os.write(descriptor, struct.pack("i", 0))
        yield
    finally:
        os.close(descriptor)


def latency() -> int | None:
    """What idle processors may take to wake, in microseconds, by everybody's wishes."""
    try:
        return int(struct.unpack("i", Path(LATENCY).read_bytes()[:4])[0])
    except OSError:
        return None


def settle_latency(calm: int | None) -> bool:
    """Waits until nobody wishes for less than `calm`: a busy daemon may hold the device.

    False if somebody still does after some seconds.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while calm is not None and (latency() or 0) < calm:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def facts(directory: Path) -> dict[str, str]:
    """What a reader of the numbers has to know of this machine."""
    processor = _first("/proc/cpuinfo", "model name")
    virtual = " hypervisor" in Path("/proc/cpuinfo").read_text()
    memory = int(_first("/proc/meminfo", "MemTotal").split()[0]) // 1024
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": f"{processor}, {os.cpu_count()} {'virtual ' if virtual else ''}processors",
        "memory": f"{memory} MiB",
        "kernel": platform.release(),
        "filesystem": _filesystem(directory),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def program_output(*command: str) -> str:
    """The first line that a program says; empty if it is not there or does not answer."""
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20, check=False
    )
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else ""


def _first(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return "unknown"


def _filesystem(directory: Path) -> str:
    """Type and options of the filesystem below, from the mount table."""
    device = os.stat(directory).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return f"{fields[fields.index('-') + 1]} ({fields[5]})"
    return "unknown"


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
