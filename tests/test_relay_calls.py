"""What the relay's thread asks of the kernel under a mixed load: nothing that may wait, but for its epoll."""

import os
import re
import shutil
from pathlib import Path

import pytest

from harness import http, procfs, strace, wait, websocket
from harness.draining import site  # noqa: F401

pytestmark = pytest.mark.slow

#: A call, its arguments, its result, and the seconds that it took.
CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\w+).*<(?P<seconds>[\d.]+)>$")
#: Calls that never wait, whatever their descriptor is.
NEVER_WAIT = {"accept4", "brk", "close", "epoll_create1", "epoll_ctl", "eventfd2", "fcntl", "getpeername",
              "getpid", "getrandom", "getsockopt", "gettid", "ioctl", "madvise", "mmap", "mprotect", "mremap",
              "munmap", "pipe2", "rt_sigprocmask", "sched_yield", "setsockopt", "shutdown", "restart_syscall"}  # fmt: skip
#: Calls that are told not to wait.
TOLD = {"recvfrom": "MSG_DONTWAIT", "recvmsg": "MSG_DONTWAIT", "sendto": "MSG_DONTWAIT", "sendmsg": "MSG_DONTWAIT",
        "splice": "SPLICE_F_NONBLOCK"}  # fmt: skip
#: As long as that another thread may hold a lock of the allocator's, or the queue's, in seconds.
MOMENT = 0.5


def lines_pipe(pid):
    """The pipe for the lines of a drain process, which never waits."""
    for number in procfs.numbers(pid):
        target = os.readlink(f"/proc/{pid}/fd/{number}")
        if target.startswith("pipe:"):
            flags = Path(f"/proc/{pid}/fdinfo/{number}").read_text().split("flags:")[1].split()[0]
            assert int(flags, 8) & os.O_NONBLOCK
            return f"{number}<{target}>,"
    raise AssertionError("no pipe")


def wrong(calls, pipe):
    """Calls that may wait; but for those of the pipe."""
    for call in calls:
        name, arguments = call["name"], call["arguments"]
        if name in NEVER_WAIT or name == "epoll_wait":
            continue
        if name in TOLD and TOLD[name] in arguments:
            continue
        # OpenSSL's, on a socket that is non-blocking since it has TLS.
        if name in ("read", "write") and re.match(r"\d+<(TCP|socket)", arguments):
            continue
        if name == "write" and pipe and arguments.startswith(pipe):
            continue
        # glibc's, once in a process, before it gives memory back (malloc's arena.c, check_may_shrink_heap):
        # the kernel answers from memory.
        if name in ("openat", "read", "close") and "/proc/sys/vm/overcommit_memory" in arguments:
            continue
        # What wakes another thread, or is told by it.
        if name in ("read", "write") and "anon_inode:[eventfd]" in arguments:
            continue
        if name == "futex" and ("FUTEX_WAKE" in arguments or float(call["seconds"]) < wait.scaled(MOMENT)):
            continue
        yield call.group()


def traced(thread, path):
    """strace on one thread, to a file."""
    return strace.attached(thread, "-y", "-T", "-s", "0", "-o", path)


@pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("where", ["child", "drain process"])
def test_the_relay_s_thread_never_waits(site, client, certificate, tmp_path, where):
    one = site("event", "LogLevel wsforward:debug", '<Location "/idle">\nWSForwardIdleTimeout 1s\n</Location>')
    tls = certificate.client_context("tls1.3")

    def begun():
        talks = []
        for number in range(30):
            talks.append(client(one.tls, tls) if number % 3 == 0 else client(one.plain))
            # Every fourth ends by its timeout, whenever that is.
            assert talks[-1].ask(http.handshake("/idle" if number % 4 == 3 else "/")).status == 101
            talks[-1].echoes()
        return talks

    def carried(talks):
        for number, talk in enumerate(talks):
            if number % 4 == 3:
                continue
            talk.echoes(os.urandom(2000))
            if number % 5 == 0:
                talk.echoes(os.urandom(1 << 20))

    def ended(talks):
        for number, talk in enumerate(talks):
            match number % 4:
                case 0:
                    talk.send_frame(websocket.close_frame(1000))
                    assert talk.read_frame().opcode == websocket.CLOSE
                    talk.close()
                case 1:
                    talk.close()
                case 2:
                    talk.reset()
                case 3:
                    assert talk.read_frame().opcode == websocket.CLOSE
                    talk.close()

    path, pipe = tmp_path / "trace", None
    if where == "child":
        [pid] = [pid for pid in one.server.children if procfs.thread(pid, "relay-0")]
        with traced(procfs.thread(pid, "relay-0"), path):
            for _ in range(3):
                talks = begun()
                carried(talks)
                ended(talks)
            one.server.log.wait_for("WSF0202", 90)
    else:
        talks = begun()
        one.server.reload()
        [pid] = wait.until(one.drains, "there is a drain process")
        wait.until(lambda: procfs.thread(pid, "relay-0"), "it carries the tunnels")
        pipe = lines_pipe(pid)
        with traced(procfs.thread(pid, "relay-0"), path):
            carried(talks)
            ended(talks)
            one.server.log.wait_for("WSF0202", 30)
    lines = path.read_text().splitlines()
    calls = [call for line in lines if (call := CALL.match(line))]
    assert len(calls) > 500
    print({name: sum(call["name"] == name for call in calls) for name in {call["name"] for call in calls}})
    assert not list(wrong(calls, pipe))
