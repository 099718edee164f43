"""The site stays alive under relayed tunnels, whatever it has of workers."""

import os
import re
import time
from pathlib import Path

import pytest

from harness import http, relayed, wait
from harness.stresspeer import PLAIN, TLS12, TLS13, StressPeer

pytestmark = pytest.mark.slow

LONG = os.environ.get("WSF_STRESS") == "long"
#: "At once", in seconds.
AT_ONCE = 1.0
TUNNELS = 500
#: What an idle tunnel may take of a child, in KiB.
MEMORY = {"plain": 3.5, "tls1.3": 22, "native": 4}
#: The same with an OpenSSL from 3.2 on, whose sessions are larger by the two objects that read and write
#: records. The keys of a hybrid key exchange (3.5) would be another 6.
MEMORY_3_2 = MEMORY | {"tls1.3": 25}
#: The fewest workers that make a site.
FEW = {"event": "ServerLimit 1\nThreadsPerChild 4\nMaxRequestWorkers 4\nMaxSpareThreads 4",
       "prefork": "ServerLimit 2\nStartServers 2\nMinSpareServers 2\nMaxSpareServers 2\nMaxRequestWorkers 2"}  # fmt: skip
FEW["worker"] = FEW["event"]
DEBIAN = """StartServers 2
ServerLimit 16
MinSpareThreads 25
MaxSpareThreads 75
ThreadLimit 64
ThreadsPerChild 25
MaxRequestWorkers 150
MaxConnectionsPerChild 0"""


@pytest.fixture
def peer(certificate):
    made = StressPeer(certificate)
    yield made
    made.close()


def answers(server, client, times=20):
    """Asks for a page so many times and returns the seconds of the slowest answer."""
    slowest = 0
    for _ in range(times):
        begin = time.monotonic()
        with client(server.page_port) as talk:
            answer = talk.ask(http.request("/page", fields=[("Connection", "close")]))
            assert (answer.status, answer.body) == (200, b"hello\n")
        slowest = max(slowest, time.monotonic() - begin)
    return slowest


def descriptors(server):
    """Numbers of all descriptors of all children."""
    found = []
    for child in server.children:
        found += [int(name) for name in os.listdir(f"/proc/{child}/fd")]
    return found


def pss_kib(pid):
    """Proportional set size of a process in KiB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.split("\nPss:")[1].split()[0])


def memory_bound(server, kind):
    """KiB that an idle tunnel may take with the OpenSSL that this server runs."""
    found = re.search(r"OpenSSL/(\d+)\.(\d+)", server.status()["ServerVersion"])
    version = tuple(map(int, found.groups())) if found else (0, 0)
    return (MEMORY_3_2 if version >= (3, 2) else MEMORY)[kind]


def idle_status(server):
    """The status once nothing but the request for it is at work."""
    def idle():
        status = server.status()
        board = status["Scoreboard"]
        return status if board.count("_") + board.count(".") == len(board) - 1 else None
    return wait.until(idle, lambda: f"an idle scoreboard: {server.status()}")


def start(httpd, peer, mpm, size):
    server = httpd(mpm=mpm)
    server.directives(size + "\nLogLevel wsforward:warn")
    peer.vhosts(server, "LogLevel wsforward:warn")
    server.page("page", "hello\n")
    server.page_port = server.vhost("RewriteEngine Off")
    return server.start()


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
def test_500_tunnels_with_a_handful_of_workers(httpd, peer, client, mpm):
    """Plain requests are answered at once, the scoreboard is idle, each tunnel is two descriptors
    above 1024, and all is as before when the tunnels are gone."""
    server = start(httpd, peer, mpm, FEW[mpm])
    # While tunnels are opened, all workers are busy for a moment.
    server.expect_log("AH00484|AH00286|AH00161", certain=False)
    run = {"size": 1000, "rounds": 3, "opening": 8, "clients": f"{PLAIN},{TLS12},{PLAIN},{TLS13}", "seconds": 60}
    # What a process opens once and keeps.
    peer.run(count=40, **run)
    answers(server, client)
    relayed.wait_figure(server, "Tunnels", 0)
    idle_status(server)
    before = relayed.figures(server)
    open_before = wait.steady(lambda: len(descriptors(server)))

    peer.hold(count=TUNNELS, at_once=TUNNELS, **run)
    relayed.wait_figure(server, "Tunnels", TUNNELS)
    slowest = answers(server, client)
    assert slowest < wait.scaled(AT_ONCE)
    status = idle_status(server)
    assert int(status["BusyWorkers"]) == 1
    # No connection of the tunnels is left in the MPM's books.
    assert int(status.get("ConnsTotal", 1)) <= 1
    assert int(status.get("ConnsAsyncClosing", 0)) == int(status.get("ConnsAsyncKeepAlive", 0)) == 0
    figures = relayed.figures(server)
    assert figures["HandedOver"] - before["HandedOver"] == TUNNELS
    assert figures["Descriptors"] == 2 * TUNNELS
    assert not any(value for name, value in figures.items() if name.startswith(("Fallback", "Refused")))
    wait.until(lambda: len(descriptors(server)) == open_before + 2 * TUNNELS,
               lambda: f"{2 * TUNNELS} descriptors more than {open_before}, has {len(descriptors(server))}")  # fmt: skip
    assert sum(number >= 1024 for number in descriptors(server)) == 2 * TUNNELS
    print(f"{mpm}: slowest of 20 plain requests with {TUNNELS} tunnels: {slowest * 1000:.1f} ms")

    result, failures = peer.release()
    assert not failures, failures
    assert result["clients"] == result["origins"] == TUNNELS
    relayed.wait_figure(server, "Tunnels", 0)
    wait.until(lambda: len(descriptors(server)) == open_before,
               lambda: f"{open_before} descriptors again, has {len(descriptors(server))}")  # fmt: skip
    assert answers(server, client) < wait.scaled(AT_ONCE)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["plain", "tls1.3", "native"])
def test_tunnels_by_the_thousand_at_debian_s_defaults(httpd, peer, client, kind):
    """9,000 tunnels by hand (WSF_STRESS=long), fewer else, and the memory of an idle one. `native` is TLS 1.3 with
    WSForwardTLS native."""
    count = 9000 if LONG else 1000
    server = start(httpd, peer, "event", f"{DEBIAN}\nWSForwardTLS native" if kind == "native" else DEBIAN)
    # No more at a time than leave MinSpareThreads: no child comes, and so none goes. A session that has a KeyUpdate
    # while its tunnel is opened may stay in OpenSSL.
    run = {"size": 100, "rounds": 3, "opening": 16, "clients": PLAIN if kind == "plain" else TLS13,
           "origins": PLAIN, "seconds": 600, "key_updates": 0}  # fmt: skip
    # What thousands of handshakes leave in the memory of the worker threads is no tunnel's: stock httpd has it too, 1.1
    # to 1.5 MiB after the first thousand with TLS, little after the third.
    peer.run(count=max(count, 3000), at_once=16, **run)
    relayed.wait_figure(server, "Tunnels", 0)

    def pss():
        return sum(pss_kib(child) for child in server.children)
    before = pss()
    peer.hold(count=count, at_once=count, **run)
    relayed.wait_figure(server, "Tunnels", count)
    slowest = answers(server, client, 100)
    grown, drains = pss() - before, relayed.figures(server)["DrainProcesses"]
    print(f"{kind}: {count} tunnels, {grown / count:.2f} KiB each ({drains} drain processes), "
          f"slowest of 100 plain requests {slowest * 1000:.1f} ms")  # fmt: skip
    assert slowest < wait.scaled(AT_ONCE)
    idle_status(server)
    assert drains == 0
    assert grown / count <= memory_bound(server, kind)
    result, failures = peer.release()
    assert not failures, failures[:10]
    assert result["clients"] == result["origins"] == count
    relayed.wait_figure(server, "Tunnels", 0, 60)


