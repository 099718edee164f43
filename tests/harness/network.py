"""Namespaces: a machine at the other end of a cable that can be pulled, and a world of one's own for a program."""

import ctypes
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

NEWNET = 0x40000000
#: A program with network, mounts and processes of its own: all that it starts ends with it.
NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]

_libc = ctypes.CDLL(None, use_errno=True)


def need_namespaces():
    """Skips a test where there are none."""
    tried = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True)
    if tried.returncode:
        # Where root may not do it, a container may be the reason; in the whole check nothing is.
        assert os.geteuid() != 0 or os.environ.get("CI") != "true", tried.stderr
        pytest.skip(f"no namespaces: {tried.stderr}")


class Machine:
    """Needs root. `ours` is this machine's address on the cable (RFC 2544), `theirs` the other's."""

    def __init__(self):
        self.name = f"wsf{os.getpid()}"
        # Others run tests too: a subnet for each process.
        net, host = os.getpid() >> 6 & 255, 4 * (os.getpid() & 63)
        self.ours, self.theirs = (f"198.18.{net}.{host + at}" for at in (1, 2))
        near, far = f"{self.name}a", f"{self.name}b"
        _ip(f"netns add {self.name}")
        try:
            _ip(f"link add {near} type veth peer name {far} netns {self.name}")
        except BaseException:
            _ip(f"netns delete {self.name}")
            raise
        try:
            _ip(f"address add {self.ours}/30 dev {near}")
            _ip(f"link set {near} up")
            _ip(f"-n {self.name} address add {self.theirs}/30 dev {far}")
            _ip(f"-n {self.name} link set {far} up")
            # Who has been found once is not looked for again: a pulled cable is silent, and no error.
            hardware = _ip(f"-n {self.name} -br link show {far}").split()[2]
            _ip(f"neighbour replace {self.theirs} lladdr {hardware} nud permanent dev {near}")
        except BaseException:
            self.close()
            raise

    @property
    def inside(self):
        """What a command begins with that runs there."""
        return ["ip", "netns", "exec", self.name]

    def receive_by_threads(self):
        """Has each end receive in a thread of the kernel's own: else it runs in whoever sends, at whose cost.

        Such a thread serves NAPI, which veth has with GRO, and uses for packets of a sender without TSO.
        """
        for at, there in ("a", []), ("b", self.inside):
            device = f"{self.name}{at}"
            _run([*there, "ethtool", "-K", device, "gro", "on", "tso", "off"])
            _run([*there, "sh", "-c", f"echo 1 > /sys/class/net/{device}/threaded"])
        assert self._receivers(), "the kernel has no threads for NAPI"

    def _receivers(self):
        """The threads that receive at this machine's end."""
        found = []
        for path in Path("/proc").glob("[0-9]*/comm"):
            try:
                if path.read_text().startswith(f"napi/{self.name}a-"):
                    found.append(path.parent)
            except (FileNotFoundError, ProcessLookupError):
                pass
        return found

    def receiving(self):
        """Processor time that receiving at this machine's end has taken, in seconds."""
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in self._receivers()) / 1e9

    def pull_cable(self):
        """Nothing goes through from now on, and nobody is told."""
        _ip(f"-n {self.name} link set {self.name}b down")

    def run(self, function):
        """What the function returns there: its sockets stay there."""
        def work():
            with open(f"/run/netns/{self.name}") as there:
                if _libc.setns(there.fileno(), NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            return function()

        # It is the thread that moves, and it ends here.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(work).result()

    def close(self):
        """Takes machine and cable away. The kernel buries a namespace later: the cable goes first."""
        try:
            _ip(f"link delete {self.name}a")
        finally:
            _ip(f"netns delete {self.name}")


def _ip(command):
    return _run(["ip", *command.split()])


def _run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout
