"""Reloads that change the configuration, the logs, or meet tunnels that are not quite usual."""

import os
import threading
from pathlib import Path

import pytest

from harness import http, paths, procfs, steps, wait, websocket
from harness.draining import opened, site  # noqa: F401
from harness.rawclient import RawClient

MPMS = ["event", "worker", "prefork"]


@pytest.mark.parametrize("mpm", MPMS)
def test_tunnels_outlive_their_virtual_host_and_mod_ssl(site, client, certificate, mpm):
    one = site(mpm)
    tunnels = opened(client, certificate, one, 12)
    server = one.server
    # Both virtual hosts go, and mod_ssl; one of another kind comes.
    server._directives[:] = ["WSForward On", "WSForwardRelay On"]
    server._modules = "\n".join(line for line in server._modules.splitlines() if "ssl_module" not in line)
    fresh = server.vhost(f'WSForward On\nWSForwardRelay On\nProxyPass "/" "{one.origin.url("http")}"')
    server.reload()
    wait.until(one.drains, "the tunnels go on")
    for child in server.children:
        assert "mod_ssl.so" not in Path(f"/proc/{child}/maps").read_text()
    for talk in tunnels:
        for size in (1, 5000, 70000):
            talk.echoes(os.urandom(size))
    with client(fresh) as talk:
        assert talk.ask(http.handshake()).status == 101
        talk.echoes()
    with pytest.raises(ConnectionRefusedError):
        client(one.plain)
    for talk in tunnels:
        talk.send_frame(websocket.close_frame(1000))
        assert talk.read_frame().opcode == websocket.CLOSE
        assert talk.end() in ("eof", "close_notify")
        talk.close()
    wait.until(lambda: not one.drains(), "drain processes end with their tunnels")


def test_tunnels_outlive_the_module(site, client, certificate):
    one = site("event")
    tunnels = opened(client, certificate, one, 6)
    server = one.server
    with_module = server._directives[:]
    server._directives[:] = []
    modules, server._modules = server._modules, "\n".join(
        line for line in server._modules.splitlines() if "wsforward" not in line)
    write = server._write

    def without_level():
        file = write()
        file.write_text(file.read_text().replace("wsforward:debug", ""))
        return file

    server._write = without_level
    server.reload()
    wait.until(one.drains, "the tunnels go on")
    for talk in tunnels:
        talk.echoes()
    # It comes back, and counts them.
    server._directives[:], server._modules, server._write = with_module, modules, write
    server.reload()
    assert one.count("Tunnels") == 6
    for talk in tunnels:
        talk.echoes()


def test_limits_hold_for_new_tunnels(site, client):
    """WSForwardIdleTimeout and WSForwardMaxTunnelsPerClient."""
    one = site("event")
    older = client(one.plain)
    assert older.ask(http.handshake()).status == 101
    older.echoes()
    one.server.directives("WSForwardIdleTimeout 1s\nWSForwardMaxTunnelsPerClient 1")
    one.server.reload()
    later = client(one.plain)
    assert later.ask(http.handshake()).status == 101
    later.echoes()
    one.server.log.expect("WSF0108")
    with client(one.plain) as talk:
        assert talk.ask(http.handshake()).status == 503
    assert later.read_frame().payload[:2] == (1001).to_bytes(2)
    later.close()
    [line] = one.server.log.wait_for("WSF0202")
    assert b"idle-timeout" in line
    older.echoes()


def held(paths, processes):
    """Which of the files these processes have open."""
    found = set()
    for pid in processes:
        try:
            found |= {target for target in procfs.descriptors(pid) if target.removesuffix(" (deleted)") in paths}
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize("mpm", MPMS)
def test_logs_are_let_go(site, client, certificate, mpm):
    """A rotated file is freed, an old rotatelogs ends, while tunnels go on."""
    program = procfs_program("rotatelogs")
    one = site(mpm)
    server = one.server
    server.directives(f'CustomLog "|{program} {server.directory}/piped.log 86400" tests')
    server.reload()
    # What stock httpd says of an old rotatelogs.
    server.log.expect("AH00167|AH00291|AH00488", certain=False)
    tunnels = opened(client, certificate, one, 12)
    loggers = wait.until(lambda: [pid for pid in server.children if name(pid) == "rotatelogs"], "rotatelogs runs")
    rotated = str(server.directory / "access.log.1")
    os.rename(server.directory / "access.log", rotated)
    assert held({rotated}, server.children)
    os.unlink(rotated)
    server.reload()
    wait.until(one.drains, "the tunnels go on")
    wait.until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in loggers), "the old rotatelogs ends")
    everyone = lambda: [server.pid, *server.children, *one.drains()]  # noqa: E731
    wait.until(lambda: not held({rotated}, everyone()), lambda: held({rotated}, everyone()))
    for talk in tunnels:
        talk.echoes()


def procfs_program(program):
    for directory in (paths.apxs("BINDIR"), "/usr/bin", "/usr/sbin", "/usr/local/apache2/bin"):
        if os.access(f"{directory}/{program}", os.X_OK):
            return f"{directory}/{program}"
    pytest.skip(f"no {program}")


def name(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


#: By fork; and through the queue, a child for each connection.
WAYS = {"fork": ("event", ""), "queue": ("prefork", "MaxConnectionsPerChild 1")}


@pytest.mark.parametrize("way", WAYS)
def test_half_closed_tunnels_live_on(site, client, way):
    mpm, more = WAYS[way]
    one = site(mpm, more)
    relayed = threading.Event()
    one.origin.answers(steps.switch(), steps.wait_for(relayed), b"\x82\x01a", steps.half_close, steps.drain, steps.close)
    talks = [client(one.plain) for _ in range(4)]
    for talk in talks:
        assert talk.ask(http.handshake()).status == 101
    wait.until(lambda: one.count("Tunnels") == 4, "relayed")
    relayed.set()
    for number, talk in enumerate(talks):
        assert talk.read_frame().payload == b"a"
        # The back end's end has been carried.
        assert talk.read_to_end() == b""
        talk.send(bytes([number]) * 1000)
    # By the order of requests, which is that of the clients.
    peers = [next(c for c in one.origin.connections if c.request is r) for r in one.origin.requests]
    for peer in peers:
        wait.until(lambda peer=peer: len(peer.received) == 1000, "carried before")
    if way == "fork":
        one.server.reload()
    wait.until(one.drains, "the tunnels go on")
    for number, talk in enumerate(talks):
        talk.send(bytes([number]) * 1000)
        talk.half_close()
    for number, peer in enumerate(peers):
        wait.until(peer.closed.is_set, "the client's end is carried")
        assert bytes(peer.received) == bytes([number]) * 2000
    assert len(one.server.log.wait_for("WSF0202.*by the back end: closed, 2000 bytes up, 3 bytes down", 4)) == 4
    wait.until(lambda: not one.drains(), "drain processes end with their tunnels")


@pytest.mark.parametrize("way", WAYS)
def test_opaque_tunnels_live_on(site, client, way):
    """No Close frame is put into what is not WebSocket."""
    mpm, more = WAYS[way]
    one = site(mpm, more, "WSForwardProtocols lines", parameters="upgrade=ANY")
    one.origin.answers(steps.switch(without=["Sec-WebSocket-Accept"]), steps.echo, steps.close)
    talks = [client(one.plain) for _ in range(4)]
    for talk in talks:
        assert talk.ask(http.request("/", fields=[("Upgrade", "lines"), ("Connection", "Upgrade")])).status == 101
        talk.send(b"\x88 not a frame\n")
        assert talk.read_exactly(14) == b"\x88 not a frame\n"
    if way == "fork":
        wait.until(lambda: one.count("Tunnels") == 4, "relayed")
        one.server.reload()
    wait.until(one.drains, "the tunnels go on")
    for talk in talks:
        talk.send(b"after\n" * 500)
        assert talk.read_exactly(3000) == b"after\n" * 500
    one.server.stop()
    for talk in talks:
        assert talk.read_to_end() == b""
    RawClient.close_all()
