"""A network namespace for the run, so that no setting of the host decides what is measured."""

import ctypes
import fcntl
import os
import pathlib
import socket
import struct

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

SYSCTLS = pathlib.Path("/proc/sys/net")

# The kernel's defaults, but for the ports: each tunnel takes one towards its back end address.
SETTINGS = {
    "core/somaxconn": "4096",
    "ipv4/ip_local_port_range": "15000 64999",
    "ipv4/tcp_congestion_control": "cubic",
    "ipv4/tcp_max_syn_backlog": "4096",
    "ipv4/tcp_rmem": "4096 131072 6291456",
    "ipv4/tcp_wmem": "4096 16384 4194304",
}


def enter():
    """Moves this process, and so all that it starts, into a network namespace of its own with
    a loopback interface. Whether it could: that takes root."""
    if os.geteuid() != 0 or ctypes.CDLL(None).unshare(CLONE_NEWNET) != 0:
        return False
    # An interface that goes up as the loopback one has all of 127.0.0.0/8.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sH14x", b"lo", 0)
        flags, = struct.unpack_from("H", fcntl.ioctl(probe, SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))
    for name, value in SETTINGS.items():
        try:
            (SYSCTLS / name).write_text(value)
        except OSError as error:
            print(f"net/{name} stays as it is: {error.strerror}", flush=True)
    return True


def setting(name):
    """One setting as it is here."""
    try:
        return " ".join((SYSCTLS / name).read_text().split())
    except OSError:
        return "unknown"


def description(is_own):
    """The settings that matter, for a report."""
    ports = setting("ipv4/ip_local_port_range").replace(" ", " to ")
    return (("a network namespace of its own" if is_own else "the host's") +
            f", ports {ports}, tcp_rmem {setting('ipv4/tcp_rmem')}, "
            f"tcp_wmem {setting('ipv4/tcp_wmem')}, somaxconn {setting('core/somaxconn')}")
