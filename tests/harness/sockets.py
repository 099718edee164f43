"""The sockets of relayed tunnels, as the kernel knows them."""

import ctypes
import os
import socket
import time
from pathlib import Path

import pytest

from . import procfs, wait

SYS_PIDFD_GETFD = 438


def _most(buffers):
    return int(Path(f"/proc/sys/net/ipv4/{buffers}").read_text().split()[2])


#: What one TCP connection may hold when nobody reads.
BUFFERS = _most("tcp_rmem") + _most("tcp_wmem")
#: What two in a row may hold, and a pipe.
IN_FLIGHT = 2 * BUFFERS + (2 << 20)
#: More than that by far.
FLOOD = 4 * IN_FLIGHT


def relayed_sockets(server):
    """The two sockets of the only tunnel, as duplicates of the child's descriptors (pidfd_getfd(2))."""
    libc, found = ctypes.CDLL(None, use_errno=True), []
    for child in server.children:
        pidfd = os.pidfd_open(child)
        try:
            for name in os.listdir(f"/proc/{child}/fd"):
                # Pipes that the relay moves bytes through are there too.
                if int(name) < 1024 or not procfs.is_socket(child, name):
                    continue
                fd = libc.syscall(SYS_PIDFD_GETFD, pidfd, int(name), 0)
                if fd < 0:
                    pytest.skip(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
                found.append(socket.socket(fileno=fd))
        finally:
            os.close(pidfd)
    return found


def option(sock, name, level=socket.IPPROTO_TCP):
    return sock.getsockopt(level, getattr(socket, name))


def held_back(count):
    """Waits until a sender can send no more, by the number of bytes that `count` returns, and returns it."""
    return wait.steady(lambda: count() or time.monotonic(), 0.5, 30)
