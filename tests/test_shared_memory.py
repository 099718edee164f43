"""What a child may write to: the parent, which is root, must neither wait nor signal nor trust for it."""

import contextlib
import fcntl
import os
import random
import signal
import struct
import subprocess
import sys

import pytest

from harness import http, procfs, wait, websocket

MPMS = ["event", "prefork"]
#: More descriptors than these the parent has not.
DESCRIPTORS = range(64)


def site(httpd, origin, mpm):
    server = httpd(mpm=mpm)
    server.port = server.vhost(f"""WSForward On
WSForwardRelay On
ProxyPass "/" "{origin.url("http")}\"""")
    return server.start()


def forged_registry():
    """Each number of the registry is one that means something to the kernel: a descriptor, or nobody's
    process."""
    chance = random.Random(1)
    numbers = [chance.choice(DESCRIPTORS) for _ in range(procfs.SharedMemory.REGISTRY // 4)]
    return struct.pack(f"<{len(numbers)}I", *numbers)


@pytest.mark.parametrize("mpm", MPMS)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGWINCH], ids=["stop", "graceful-stop"])
def test_server_with_a_forged_registry_stops(httpd, backend, client, mpm, how):
    """Whichever descriptor stands there: the parent does not read of it."""
    server = site(httpd, backend(), mpm)
    talk = client(server.port)
    assert talk.ask(http.handshake()).status == 101
    talk.echoes()
    server.wait_idle()
    procfs.SharedMemory(server.pid, procfs.SharedMemory.REGISTRY).write(0, forged_registry())
    server.stop(how)
    assert server.stopped_in < wait.scaled(10)
    frame = talk.read_frame()
    assert (frame.opcode, frame.payload[:2]) == (websocket.CLOSE, struct.pack("!H", 1001))


@contextlib.contextmanager
def ended(command, **options):
    """A process that ends with the block, whatever happens there."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def test_nobody_else_is_signalled(httpd, backend, client):
    """A process that merely stands in the registry goes on, whoever is told to stop."""
    server = site(httpd, backend(), "event")
    with ended(["sleep", "300"]) as other:
        registry = procfs.SharedMemory(server.pid, procfs.SharedMemory.REGISTRY)
        registry.write(8, struct.pack("<IIQ", other.pid, 0, 1))
        server.stop()
        assert other.poll() is None


#: A process that has named itself as drain processes are named.
NAMED = """import ctypes, time
ctypes.CDLL(None).prctl(15, b"wsforward-drain")
print(flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize("mpm", MPMS)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP], ids=["stop", "restart"])
def test_a_name_is_not_enough(httpd, backend, client, mpm, how):
    """Whoever is named as drain processes are is not signalled for that. The drain process whose place in memory
    he has is."""
    server = site(httpd, backend(), mpm)
    talk = client(server.port)
    assert talk.ask(http.handshake()).status == 101
    talk.echoes()
    server.reload()
    wait.until(lambda: server.status()["WSForwardDrainProcesses"] == "1", server.status)
    registry = procfs.SharedMemory(server.pid, procfs.SharedMemory.REGISTRY)
    with ended([sys.executable, "-c", NAMED], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        forged = struct.pack("<IIQ", other.pid, 0, 1)
        registry.write(8, forged * ((procfs.SharedMemory.REGISTRY - 8) // len(forged)))
        assert server.status()["WSForwardDrainProcesses"] == "1"
        if how == signal.SIGTERM:
            server.stop()
        else:
            server.reload(how)
        assert other.poll() is None
    frame = talk.read_frame()
    assert (frame.opcode, frame.payload[:2]) == (websocket.CLOSE, struct.pack("!H", 1001))


@contextlib.contextmanager
def every_lock(pid):
    """Holds all locks of drain processes, as any child could."""
    [number] = [number for number in procfs.numbers(pid) if "wsforward locks" in os.readlink(f"/proc/{pid}/fd/{number}")]
    with open(f"/proc/{pid}/fd/{number}", "r+b", buffering=0) as locks:
        fcntl.lockf(locks, fcntl.LOCK_EX, 1 << 20)
        yield locks


def test_a_lock_is_not_enough(httpd, backend, client):
    """Whoever has all locks is one process, and not signalled as long as it has another name."""
    server = site(httpd, backend(), "event")
    told = []
    before = signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    try:
        with every_lock(server.pid):
            procfs.SharedMemory(server.pid, procfs.SharedMemory.REGISTRY).write(0, forged_registry())
            assert server.status()["WSForwardDrainProcesses"] == "1"
            server.stop()
            assert server.stopped_in < wait.scaled(10)
        assert not told
    finally:
        signal.signal(signal.SIGTERM, before)


def test_nothing_is_written_to_the_file_of_locks(httpd, backend):
    """What stood there would be nobody's memory."""
    server = site(httpd, backend(), "event")
    with every_lock(server.pid) as locks, pytest.raises(PermissionError):
        locks.write(b"x")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mpm", MPMS)
def test_random_bytes_in_shared_memory(httpd, backend, client, mpm):
    """Children may miscount then; pages are served, and the server stops."""
    server = site(httpd, backend(), mpm)
    memories = [procfs.SharedMemory(server.pid), procfs.SharedMemory(server.pid, procfs.SharedMemory.REGISTRY)]
    for seed in range(30):
        chance = random.Random(seed)
        for memory in memories:
            # No process has such a number: what is found there is nobody.
            size = chance.choice([8, 4096, memory.length])
            at = chance.randrange(0, memory.length - size + 1, 8)
            memory.write(at, b"".join(struct.pack("<I", chance.getrandbits(31) | 1 << 24) for _ in range(size // 4)))
        with client(server.port) as talk:
            assert talk.ask(http.request()).status == 200
    wait.until(lambda: server.status() is not None, "httpd answers")
    server.stop()
    assert server.stopped_in < wait.scaled(10)
