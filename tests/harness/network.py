"""Namespaces: a machine at the other end of a cable that can be pulled, and a world of one's own for a program."""

import ctypes
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

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
    done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {command}: {done.stderr}")
    return done.stdout
