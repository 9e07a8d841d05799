"""Writes with O_DIRECT and Linux AIO beside cached reads: what was written is what is read.

Usage: direct.py FILE ROUNDS
"""

import ctypes
import mmap
import os
import struct
import sys
import threading

SIZE = 16384
PWRITE = 1
SETUP, _, GETEVENTS, SUBMIT = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}[os.uname().machine]

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *args):
    got = libc.syscall(ctypes.c_long(number), *args)
    if got < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return got


def read(path, stop):
    fd = os.open(path, os.O_RDONLY)
    while not stop.is_set():
        os.pread(fd, SIZE, 0)
    os.close(fd)


def write(context, fd, address):
    fields = (0, 0, 0, PWRITE, 0, fd, address, SIZE, 0, 0, 0, 0)
    block = struct.pack("=QIiHhIQQqQII", *fields)
    block = ctypes.create_string_buffer(block, len(block))
    pointer = ctypes.c_void_p(ctypes.addressof(block))
    call(SUBMIT, context, ctypes.c_long(1), ctypes.byref(pointer))
    event = ctypes.create_string_buffer(32)
    call(GETEVENTS, context, ctypes.c_long(1), ctypes.c_long(1), event, None)
    assert struct.unpack("=QQqq", event.raw)[2] == SIZE


def main(path, rounds):
    with open(path, "wb") as file:
        file.write(bytes(SIZE))
    direct = os.open(path, os.O_RDWR | os.O_DIRECT)
    cached = os.open(path, os.O_RDONLY)
    context = ctypes.c_ulong(0)
    call(SETUP, 8, ctypes.byref(context))
    buffer = mmap.mmap(-1, SIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    stop = threading.Event()
    readers = [threading.Thread(target=read, args=(path, stop)) for _ in range(3)]
    for reader in readers:
        reader.start()
    stale = 0
    for number in range(rounds):
        buffer[:] = bytes([number % 251 + 1]) * SIZE
        write(context, direct, address)
        stale += os.pread(cached, SIZE, 0) != buffer[:]
    stop.set()
    for reader in readers:
        reader.join()
    if stale:
        sys.exit(f"{stale} of {rounds} reads gave old bytes")


main(sys.argv[1], int(sys.argv[2]))
