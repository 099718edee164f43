"""The relay's directives: right values, and what they do to the sockets."""

import os
import socket
import time
from pathlib import Path

import pytest

from harness import relayed, relaysite, wait
from harness.sockets import option, relayed_sockets


@pytest.mark.parametrize("line", [
    "WSForwardRelay off", "WSForwardMaxTunnels 0", "WSForwardMaxTunnels 4294967295", "WSForwardMaxTunnelsPerClient 0",
    "WSForwardMaxTunnelsPerBackend 0", "WSForwardMaxTunnelsPerBackend 4294967295",
    "WSForwardRelayThreads 1", "WSForwardRelayThreads 64", "WSForwardBufferSize 4096", "WSForwardBufferSize 1048576",
    "WSForwardTLS openssl", "WSForwardTLS Native",
    "WSForwardKeepAlive off", "WSForwardKeepAlive 1 1 1", "WSForwardKeepAlive 32767 32767 127",
])  # fmt: skip
def test_right_value_passes_configtest(httpd, line):
    server = httpd()
    server.directives(line)
    status, text = server.configtest()
    assert status == 0, text


SERVER_ONLY = ["WSForwardMaxTunnels 1", "WSForwardMaxTunnelsPerBackend 1", "WSForwardMaxTunnelsPerClient 1",
               "WSForwardRelayThreads 1", "WSForwardBufferSize 4096", "WSForwardKeepAlive Off",
               "WSForwardTLS native"]  # fmt: skip


@pytest.mark.parametrize("line", SERVER_ONLY)
@pytest.mark.parametrize("section", ["Directory /", "Location /"])
def test_directives_of_the_server_fail_in_sections(httpd, line, section):
    server = httpd()
    server.directives(f"<{section}>\n{line}\n</{section.split()[0]}>")
    status, text = server.configtest()
    assert status != 0
    assert line.split()[0] in text


@pytest.fixture
def origins(backend):
    return relaysite.origins(backend)


@pytest.mark.parametrize("mpm", ["event", "prefork"])
@pytest.mark.parametrize("threads", [1, 4])
def test_relay_threads(httpd, origins, client, mpm, threads):
    """So many in each child, all of them used."""
    server = httpd(mpm=mpm)
    server.directives(f"WSForwardRelayThreads {threads}")
    relaysite.start(server, origins)
    # Children that are just being made have none yet.
    wait.until(lambda: relayed.figures(server)["RelayThreads"] == threads * len(server.children),
               "every child has its threads")  # fmt: skip
    for _ in range(8):
        relayed.opened(server, client(server.ports["plain"])).echoes()


@pytest.mark.parametrize("size", [4096, 1048576])
def test_buffer_size(httpd, origins, client, certificate, size):
    """Messages larger and smaller than the buffer pass whole."""
    server = httpd()
    server.directives(f"WSForwardBufferSize {size}")
    relaysite.start(server, origins)
    for port, tls in ((server.ports["plain"], None), (server.ports["tls"], certificate.client_context("tls1.3"))):
        talk = relayed.opened(server, client(port, tls))
        for length in (1, 4095, 4096, 4097, 70_000, 1_500_000):
            talk.echoes(os.urandom(length))


# Sockets.


KEEP_ALIVES = [("", (60, 20, 3)), ("WSForwardKeepAlive 5 2 4", (5, 2, 4)), ("WSForwardKeepAlive 300 30 5", (300, 30, 5))]


@pytest.mark.parametrize("to", ["tcp", "tls"])
@pytest.mark.parametrize(("line", "expected"), KEEP_ALIVES)
def test_options_of_both_sockets(httpd, origins, client, line, expected, to):
    """Keepalive, no delay of Nagle's; no TCP_USER_TIMEOUT, which ends a peer that just does not read."""
    server = httpd()
    server.directives(line)
    relaysite.start(server, origins)
    relayed.opened(server, client(server.ports["plain"]), "/" if to == "tcp" else "/tls/").echoes()
    both = relayed_sockets(server)
    assert len(both) == 2
    idle, interval, count = expected
    # A tunnel must have lived for some seconds to be worth it.
    set_last = {"TCP_KEEPIDLE": idle, "TCP_KEEPINTVL": interval, "TCP_KEEPCNT": count}
    wait.until(lambda: all(option(sock, name) == value for sock in both for name, value in set_last.items()),
               "keepalive is set")  # fmt: skip
    for sock in both:
        with sock:
            assert option(sock, "SO_KEEPALIVE", socket.SOL_SOCKET) == 1
            assert option(sock, "TCP_USER_TIMEOUT") == 0
            assert option(sock, "TCP_NODELAY") == 1


def test_keep_alive_off(httpd, origins, client):
    """The kernel's own times, as httpd's sockets have them; no delay of Nagle's all the same."""
    server = httpd()
    server.directives("WSForwardKeepAlive Off")
    relaysite.start(server, origins)
    relayed.opened(server, client(server.ports["plain"])).echoes()
    both = relayed_sockets(server)
    assert len(both) == 2
    # Beyond the time at which it would be set.
    time.sleep(4)
    for sock in both:
        with sock:
            default = int(Path("/proc/sys/net/ipv4/tcp_keepalive_time").read_text())
            assert option(sock, "TCP_KEEPIDLE") == default
            assert option(sock, "TCP_USER_TIMEOUT") == 0
            assert option(sock, "TCP_NODELAY") == 1
