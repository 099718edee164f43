"""What the kernel says about a process."""

import os
import socket
import struct
from pathlib import Path


def children(pid):
    """Process ids of the living children of `pid`."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split()]
        except OSError:
            continue
    return found


def command(pid):
    """The words of its command line, none once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return []


def private_kib(pid):
    """Memory that only this process has, in KiB (Private_Clean + Private_Dirty)."""
    return _smaps(pid, "Private_Clean") + _smaps(pid, "Private_Dirty")


def anonymous_kib(pid):
    """Anonymous memory in KiB, whether or not children of the process still share it."""
    return _smaps(pid, "Anonymous")


def shared_out_kib(pid):
    """Memory in KiB, what is shared with others by parts (Pss): that of several processes may be added up."""
    return _smaps(pid, "Pss")


def named(comm, mark):
    """Ids of processes of that name that have this in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text() == f"{comm}\n" and mark.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def _smaps(pid, key):
    if "WSF_REPORTS" in os.environ:
        # Not above: fleet/ has no pytest.
        import pytest
        pytest.skip("most of this memory is what watches httpd (ci/sanitizers)")
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == key:
            return int(rest.split()[0])
    raise KeyError(key)


def as_it_sees(pid, path):
    """What the process calls a file that we see at `path`: its root may be another one (ci/platforms)."""
    try:
        return path.removeprefix(os.readlink(f"/proc/{pid}/root").rstrip("/"))
    except OSError:
        return path


def descriptors(pid):
    """What every open descriptor of the process points to; nothing if the process is gone."""
    found = []
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return found
    for name in names:
        try:
            found.append(as_it_sees(pid, os.readlink(f"/proc/{pid}/fd/{name}")))
        except FileNotFoundError:
            continue
    return sorted(found)


def numbers(pid):
    """The numbers of its open descriptors."""
    return {int(name) for name in os.listdir(f"/proc/{pid}/fd")}


def is_cloexec(pid, number):
    """Whether a descriptor ends with its program."""
    flags = Path(f"/proc/{pid}/fdinfo/{number}").read_text().split("flags:")[1].split()[0]
    return bool(int(flags, 8) & os.O_CLOEXEC)


def owner(pid):
    """The user and the group that it runs as. /proc itself belongs to root where ids were changed."""
    status = Path(f"/proc/{pid}/status").read_text()
    return tuple(int(status.split(f"\n{name}:")[1].split()[0]) for name in ("Uid", "Gid"))


def descriptor_limits(pid):
    """How many descriptors it may have open: its soft and its hard limit."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    return tuple(int(word) for word in limits.split("\nMax open files")[1].split()[:2])


def thread(pid, name):
    """The id of its thread of that name, None if there is none."""
    for comm in Path(f"/proc/{pid}/task").glob("*/comm"):
        if comm.read_text() == f"{name}\n":
            return int(comm.parent.name)
    return None


#: sock_diag(7).
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, TCP_LISTEN = 4, 20, 1, 10


def tcp_socket(port, peer):
    """(bytes not yet acknowledged, bytes not yet read, inode) of the socket at `port` whose other end
    is at `peer`, both at 127.0.0.1; None if there is none.

    It asks for this one: /proc/net/tcp takes long where there are thousands.
    """
    address = socket.inet_aton("127.0.0.1") + bytes(12)
    identity = struct.pack("!HH", port, peer) + address + address + struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    question = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + identity
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(struct.pack("=IHHII", 16 + len(question), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0) + question)
        answer = kernel.recv(65536)
    if struct.unpack_from("=H", answer, 4) != (SOCK_DIAG_BY_FAMILY,):
        return None
    _, state = struct.unpack_from("=BB", answer, 16)
    unread, unsent, _, inode = struct.unpack_from("=IIII", answer, 16 + 4 + 48 + 4)
    return (unsent, unread, inode) if state != TCP_LISTEN else None


def connections(pid):
    """The numbers of its descriptors that are established TCP connections over IPv4."""
    return _tcp(pid, "01")


def listeners(pid):
    """The numbers of its descriptors that listen for such."""
    return _tcp(pid, "0A")


def _tcp(pid, state):
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = {f"socket:[{fields[9]}]" for fields in lines if fields[3] == state}
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}") in established:
                found.add(int(name))
        except FileNotFoundError:
            continue
    return found


def threads(pid):
    """Number of threads of the process, 0 if it is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def mapped_inodes(pid, path):
    """Inodes of the mappings of a file, deleted ones included; none if the process is gone. `path` is as the process sees it."""
    inodes = set()
    try:
        mappings = Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return inodes
    for line in mappings.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and as_it_sees(pid, fields[5].removesuffix(" (deleted)")) == str(path):
            inodes.add(int(fields[4]))
    return inodes


def asleep(pid):
    """True if every thread of the process waits for something, and none runs; also if it has ended."""
    return _all_are(pid, "S")


def stopped(pid):
    """True if every thread of the process stands still, by SIGSTOP; also if it has ended."""
    return _all_are(pid, "TXZ")


def _all_are(pid, states):
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return True
    for thread in threads:
        try:
            state = Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in states:
            return False
    return True


def is_socket(pid, number):
    """Whether this descriptor of a process is a socket; not if it was closed meanwhile."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:")
    except OSError:
        return False


class SharedMemory:
    """What all processes of a server share of the module's, as anybody who may write to it sees it."""

    #: Of the registry of drain processes: two numbers, and 2048 entries of two. In bytes.
    REGISTRY = 8 + 2048 * 16

    def __init__(self, pid, size=None):
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        found = []
        for line in lines:
            addresses, flags, *_ = line.split()
            if flags.startswith("rw-s") and "/dev/zero" in line:
                start, end = (int(address, 16) for address in addresses.split("-"))
                found.append((end - start, start))
        if size:
            pages = -(-size // os.sysconf("SC_PAGESIZE")) * os.sysconf("SC_PAGESIZE")
            found = [(length, start) for length, start in found if length == pages]
        #: Without a size the second largest, which is that of counts and clients: after the register of tunnels.
        #: httpd's own are smaller.
        self.length, self._start = sorted(found)[0 if size else -2]
        self._file = f"/proc/{pid}/mem"

    def read(self, at=0, length=None):
        """Bytes from `at` on."""
        with open(self._file, "rb", buffering=0) as memory:
            memory.seek(self._start + at)
            return memory.read(self.length if length is None else length)

    def write(self, at, content):
        """Puts bytes at `at`."""
        with open(self._file, "r+b", buffering=0) as memory:
            memory.seek(self._start + at)
            memory.write(content)
