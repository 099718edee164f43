"""Machines and the cable between them: network namespaces on a bridge. Needs root, and namespaces of
its own for network, mounts and processes (ci/fleet): nothing of this is left behind."""

import ctypes
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

NEWNET = 0x40000000
#: Where clients and the application are.
HOME = "10.0.0.1"

_libc = ctypes.CDLL(None, use_errno=True)


def prepare():
    """/run is empty and its own; the bridge is there."""
    _run("mount -t tmpfs none /run")
    for folder in ("/run/netns", "/run/haproxy", "/run/wsforward"):
        os.mkdir(folder)
    _run("ip link set lo up")
    _run("ip link add fleet type bridge")
    _run(f"ip address add {HOME}/24 dev fleet")
    _run("ip link set fleet up")


class Machine:
    """One with an address on the bridge."""

    def __init__(self, name, address):
        self.name, self.address = name, address
        _run(f"ip netns add {name}")
        _run(f"ip link add {name} type veth peer name eth0 netns {name}")
        _run(f"ip link set {name} master fleet up")
        _run(f"ip -n {name} link set lo up")
        _run(f"ip -n {name} address add {address}/24 dev eth0")
        _run(f"ip -n {name} link set eth0 up")
        #: A thread that is there.
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)

    def _enter(self):
        with open(f"/run/netns/{self.name}") as there:
            if _libc.setns(there.fileno(), NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def start(self, *command, bind=None, **options):
        """Starts a program there; `bind` are a folder and where the program sees it."""
        there = ["ip", "netns", "exec", self.name]
        if bind:
            there += ["sh", "-c", f'mount --bind "{bind[0]}" "{bind[1]}" && exec "$@"', "sh"]
        return subprocess.Popen([*there, *map(str, command)], stdin=subprocess.DEVNULL, **options)

    def get(self, port, target):
        """Status and body of a GET that is sent there, to itself."""
        return self._thread.submit(_get, port, target).result()


def _get(port, target):
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(f"GET {target} HTTP/1.0\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: sock.recv(65536), b"")).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def _run(command):
    done = subprocess.run(command.split(), capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{command}: {done.stderr}")
