"""A tree of files like those of a program's source, the same for each seed."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

_WORDS = ["let", "return", "match", "for", "key", "page", "file", "size", "error", "read", "offset"]
_FOLDERS_FOR_FILES = 12
_MEDIAN_SIZE = 3000
_SPREAD = 1.1
_LARGEST = 200_000


def write_archive(path: Path, files: int, seed: int) -> None:
    """Writes a tar archive with `files` files of text in nested directories."""
    rng = random.Random(seed)
    folders = ["tree"]
    for number in range(max(1, files // _FOLDERS_FOR_FILES)):
        folders.append(f"{rng.choice(folders[-8:])}/part{number}")
    with tarfile.open(path, "w") as archive:
        for folder in folders:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for number in range(files):
            text = _text(rng, int(_MEDIAN_SIZE * rng.lognormvariate(0, _SPREAD)))
            entry = tarfile.TarInfo(f"{rng.choice(folders)}/source{number}.rs")
            entry.size, entry.mtime = len(text), 1_700_000_000
            archive.addfile(entry, io.BytesIO(text))


def _text(rng: random.Random, size: int) -> bytes:
    """About `size` bytes of lines."""
    size = min(size, _LARGEST)
    lines: list[str] = []
    length = 0
    while length < size:
        line = " ".join(rng.choices(_WORDS, k=8))
        lines.append(f"    {line} {rng.randrange(10**6)};\n")
        length += len(lines[-1])
    return "".join(lines).encode()
