"""The module through httpd's life: double load, restarts, replacement, and the end."""

import os
import re
import shutil
import signal
import threading

import pytest

from harness import http, procfs, steps, strace, wait, websocket
from harness.draining import site  # noqa: F401

MPMS = ["event", "worker", "prefork"]
RESTARTS, WARM_UP = 100, 20
#: Allowed growth of the parent's anonymous memory over the restarts after the warm-up, in KiB: stock
#: httpd grows by 15 to 20, a page a restart would be 320. (Its private memory jumps by hundreds, by
#: what its children have written to and so no longer share.)
GROWTH = 64


def proxied(httpd, origin, mpm="event", relay="Off", **kwargs):
    server = httpd(mpm=mpm, **kwargs)
    port = server.vhost(f"""WSForward On
WSForwardRelay {relay}
WSForwardProtocols websocket my/1
WSForwardHandshakeTimeout 10
WSForwardIdleTimeout 600
ProxyPass "/" "{origin.url("http")}\"""")
    return server.start(), port


def works(client, port):
    """A tunnel from the handshake to its close."""
    with client(port) as talk:
        assert talk.ask(http.handshake()).status == 101
        talk.echoes()
        talk.send_frame(websocket.close_frame(1000))
        assert talk.read_frame().opcode == websocket.CLOSE


@pytest.mark.parametrize("mpm", MPMS)
@pytest.mark.parametrize("how", [signal.SIGUSR1, signal.SIGHUP], ids=["graceful", "hard"])
def test_tunnels_after_a_restart(httpd, backend, client, mpm, how):
    origin = backend()
    server, port = proxied(httpd, origin, mpm)
    for _ in range(3):
        works(client, port)
        server.wait_idle()
        server.reload(how)
    works(client, port)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("relay", ["Off", "On"])
@pytest.mark.parametrize("mpm", ["event", "prefork"])
def test_a_hundred_graceful_restarts_without_growth(httpd, backend, client, mpm, relay):
    """The parent's memory, descriptors and threads stay: each load undoes the one before."""
    origin = backend()
    server, port = proxied(httpd, origin, mpm, relay)
    seen, talks = [], []
    for number in range(RESTARTS):
        server.reload()
        if number % 10 == 0:
            works(client, port)
            # With the relay it lives in a drain process from the next reload on.
            talks.append(client(port))
            assert talks[-1].ask(http.handshake()).status == 101
        if relay == "Off":
            talks.pop().close() if talks else None
        if number in (WARM_UP, RESTARTS - 1):
            seen.append((procfs.anonymous_kib(server.pid), procfs.descriptors(server.pid), procfs.threads(server.pid)))
    (early, open_early, threads_early), (late, open_late, threads_late) = seen
    assert late - early < GROWTH, f"{early} KiB after {WARM_UP}, {late} KiB after {RESTARTS} restarts"
    assert len(open_late) == len(open_early), (open_early, open_late)
    assert threads_late == threads_early == 1
    assert len(procfs.mapped_inodes(server.pid, server.module)) == 1
    for talk in talks:
        talk.echoes().close()


@pytest.mark.parametrize("mpm", ["event", "prefork"])
def test_replaced_module_is_in_use_after_the_next_reload(httpd, backend, client, module, scratch, mpm):
    """Nothing may pin the old file: no thread-local destructor, no handle, no static of a library."""
    copy = scratch / f"replaced-{mpm}.so"
    shutil.copy(module, copy)
    origin, server = backend(), httpd(mpm=mpm, module=copy)
    port = server.vhost(f'WSForward On\nProxyPass "/" "{origin.url("http")}"')
    server.start()
    # What pins a library would be done by serving: a tunnel, a refusal, a log line.
    works(client, port)
    old = copy.stat().st_ino
    assert procfs.mapped_inodes(server.pid, copy) == {old}
    assert server.log.matching("WSF0101: asking the back end for websocket")
    replacement = copy.with_name(f"new-{mpm}.so")
    # The same but for what it says, so that not only the file but its code can be told apart.
    replacement.write_bytes(module.read_bytes().replace(b"asking the back end for ", b"ASKING THE BACK END FOR "))
    replacement.chmod(0o755)
    replacement.rename(copy)
    new = copy.stat().st_ino
    assert new != old
    # Until then it is the old one, whatever the file is now.
    server.log.open_span()
    works(client, port)
    assert server.log.matching("WSF0101: asking the back end for websocket")
    server.reload()
    assert procfs.mapped_inodes(server.pid, copy) == {new}
    # A child of the old generation may still take a connection before it ends.
    wait.until(lambda: {new} == set().union(*(procfs.mapped_inodes(child, copy) for child in server.children)),
               "the children have the new one, all of them")  # fmt: skip
    server.log.open_span()
    works(client, port)
    [line] = server.log.matching("WSF0101")
    assert b"WSF0101: ASKING THE BACK END FOR websocket" in line


@pytest.mark.parametrize("mpm", MPMS)
def test_drain_processes_live_on_with_the_old_code(site, client, module, scratch, mpm):
    """The parent has the new file after the reload, a drain process the old one, and a restart of the
    new one's ends both kinds of tunnels."""
    copy = scratch / f"drained-{mpm}.so"
    shutil.copy(module, copy)
    one = site(mpm, module=copy)
    old = copy.stat().st_ino
    older = client(one.plain)
    assert older.ask(http.handshake()).status == 101
    older.echoes()
    replacement = copy.with_name(f"drained-{mpm}-new.so")
    shutil.copy(module, replacement)
    replacement.rename(copy)
    new = copy.stat().st_ino
    one.server.reload()
    [drain] = wait.until(one.drains, "there is a drain process")
    later = client(one.plain)
    assert later.ask(http.handshake()).status == 101
    assert procfs.mapped_inodes(one.server.pid, copy) == {new}
    assert procfs.mapped_inodes(drain, copy) == {old}
    for talk in (older, later):
        talk.echoes()
    one.server.send_signal(signal.SIGHUP)
    for talk in (older, later):
        assert talk.read_frame().payload[:2] == (1001).to_bytes(2)
        talk.close()
    wait.until(lambda: not one.drains(), "the drain process has ended", 5)
    # Nothing of what it took to tell them pins the file.
    shutil.copy(module, replacement)
    replacement.rename(copy)
    one.server.reload()
    assert procfs.mapped_inodes(one.server.pid, copy) == {copy.stat().st_ino}


def test_removed_by_a_reload(httpd, backend, client):
    """A reload without the LoadModule line leaves an httpd that never knew the module."""
    origin = backend()
    server, port = proxied(httpd, origin)
    works(client, port)
    conf = server.directory / "httpd.conf"
    text = conf.read_text()
    without = "\n".join(line for line in text.splitlines() if not re.search("wsforward|</IfDirective>", line, re.I) or "LogLevel" in line)
    conf.write_text(without.replace("wsforward:debug", ""))
    said = len(server.log.matching("resuming normal operations"))
    server.send_signal(signal.SIGUSR1)
    server.log.wait_for("resuming normal operations", said + 1)
    assert client(port).ask(http.handshake()).status == 200
    assert not procfs.mapped_inodes(server.pid, server.module)


def test_turned_on_and_off_by_reloads(httpd, backend, client):
    """What one configuration said is forgotten with it."""
    origin, server = backend(), httpd()
    port = server.vhost(f'ProxyPass "/" "{origin.url("http")}"')
    server.start()
    base = list(server._directives)
    for on in (False, True, False, True):
        server._directives = [*base, "WSForward On"] if on else list(base)
        server.reload()
        # The old generation may still take a connection; the new one says so in what it does.
        expected = 101 if on else 200
        wait.until(lambda expected=expected: client(port).ask(http.handshake()).status == expected, f"{expected}")


@pytest.mark.slow
@pytest.mark.parametrize("mpm", ["event", "prefork"])
def test_stop_with_open_tunnels(httpd, backend, client, mpm):
    """A stop ends the tunnels and leaves nobody behind; in the thread it takes as long as for stock."""
    origin = backend()
    server, port = proxied(httpd, origin, mpm)
    talks = [client(port) for _ in range(3)]
    for talk in talks:
        assert talk.ask(http.handshake()).status == 101
        talk.echoes()
    # httpd's own word for a child that is busy at a hard stop.
    server.expect_log("AH00045|AH00046", certain=False)
    server.stop()
    for talk in talks:
        assert talk.end() in ("eof", "reset")
    for connection in origin.connections:
        connection.wait_closed()


@pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace")
@pytest.mark.skipif("WSF_REPORTS" in os.environ, reason="nobody can look for leaks in a process that strace has")
@pytest.mark.parametrize("mpm", MPMS)
def test_signals_to_httpd_while_it_ends_harm_nothing(httpd, backend, client, mpm):
    """Until its very end, when it has given back the memory that its handlers of signals use."""
    server, port = proxied(httpd, backend(), mpm, "On")
    server.reload()
    works(client, port)
    # One for each piece of memory that it gives back; the harness looks at how it ended.
    with strace.attached(server.pid, "-o", "/dev/null", "-e", "trace=munmap", "-e", "inject=munmap:signal=SIGTERM"):
        server.stop()


@pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace")
def test_a_child_that_is_stopped_while_it_hands_a_tunnel_over_has_not_crashed(site, client):
    """prefork stops a child wherever it is. The tunnel ends with it, and nobody finds it missing."""
    one = site("prefork")
    answer = threading.Event()
    one.origin.answers(steps.wait_for(answer), steps.switch(), steps.websocket_echo)
    talk = client(one.plain)
    talk.send(http.handshake())
    wait.until(lambda: one.origin.requests, "the back end is asked")
    child = one.server.serving(talk)
    # What it closes first is the back end's socket: httpd has let go of that, and not yet of the client's.
    with strace.attached(child, "-o", "/dev/null", "-e", "trace=close", "-e", "inject=close:signal=SIGTERM:when=1"):
        answer.set()
        one.server.log.wait_for("WSF0200")
        wait.until(lambda: child not in one.server.children, "the child has ended")
    assert talk.read_head().status == 101
    assert talk.end() in ("eof", "reset")
    # Whoever looks finds it dead, and says so if it left a tunnel.
    assert one.count("HandedOver") == 1
    wait.until(lambda: one.count("Tunnels") == 0, "no tunnel is counted")


@pytest.mark.slow
@pytest.mark.parametrize("mpm", MPMS)
def test_no_growth_of_a_child_over_many_tunnels(httpd, backend, client, mpm):
    """Descriptors and memory of the child after 400 tunnels and 400 refusals are those after 200."""
    origin = backend()
    server = httpd(mpm=mpm)
    if mpm == "prefork":
        server.directives("StartServers 1\nMinSpareServers 1\nMaxSpareServers 1\nServerLimit 1\nMaxRequestWorkers 1")
        server.expect_log("AH00161: server reached MaxRequestWorkers", certain=False)
    port = server.vhost(f'KeepAlive Off\nWSForward On\nProxyPass "/" "{origin.url("http")}" disablereuse=on')
    server.start()

    def many(count):
        for number in range(count):
            if number % 2:
                origin.script = [http.page(b"no", "403 Forbidden"), steps.keep]
            else:
                origin.script = steps.WEBSOCKET_OR_PAGE
            with client(port) as talk:
                status = talk.ask(http.handshake()).status
                assert status == (403 if number % 2 else 101)
        origin.reset()
        server.wait_idle()
    # So often that every worker thread has its memory.
    many(400)
    [child] = server.children

    def sockets():
        return len([d for d in procfs.descriptors(child) if d.startswith("socket:")])
    before = procfs.private_kib(child), sockets()
    many(400)
    assert server.children == [child]
    wait.until(lambda: sockets() <= before[1], lambda: f"{before[1]} sockets, has {sockets()}")
    assert procfs.private_kib(child) - before[0] < 512
