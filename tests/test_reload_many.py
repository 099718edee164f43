"""No default setting cuts a tunnel: TLS tunnels over many reloads, and over many children.

`WSF_STRESS=long` is for by-hand runs. Figures: `pytest -rP` shows them.
"""

import os
from pathlib import Path

import pytest

from harness import http, procfs, wait
from harness.draining import BY_FORK, site  # noqa: F401

pytestmark = pytest.mark.slow

LONG = os.environ.get("WSF_STRESS") == "long"
#: Reloads, and tunnels opened before each.
RELOADS, EACH = (20, 15) if LONG else (40, 2)
#: Connections of a child, and tunnels in all. A page after each makes up the rest of them.
PER_CHILD, TUNNELS = (100, 300) if LONG else (3, 120)
#: So many drain processes were once all that there could be.
ONCE = 32
LIMITS = {
    "event": "",
    "prefork": "StartServers 16\nServerLimit 400\nMaxRequestWorkers 400\nMaxSpareServers 32",
}


def tunnel(client, one, tls):
    """A tunnel with TLS that echoes."""
    talk = client(one.tls, tls)
    assert talk.ask(http.handshake()).status == 101
    return talk.echoes()


def figures(one):
    """What the drain processes take, shared pages by their share."""
    pss = [int(line.split()[1]) for pid in one.drains()
           for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:")]  # fmt: skip
    return f"{len(pss)} drain processes, {sum(pss)} KiB PSS, {sum(pss) // len(pss)} KiB each, at most {max(pss)}"


@pytest.mark.timeout(1200 if LONG else 180)
@pytest.mark.parametrize("mpm", LIMITS)
def test_tls_tunnels_outlive_many_reloads(site, client, certificate, mpm):
    """Each child with a TLS tunnel leaves a process at each reload, and none has to go."""
    one = site(mpm, LIMITS[mpm])
    tls = certificate.client_context("tls1.3")
    tunnels = []
    for _ in range(RELOADS):
        tunnels += [tunnel(client, one, tls) for _ in range(EACH)]
        one.server.reload()
        for talk in tunnels:
            talk.echoes()
    wait.until(lambda: one.count("Tunnels") == len(tunnels), "every tunnel is counted")
    for talk in tunnels:
        talk.echoes(os.urandom(2000))
    wait.until(lambda: len(one.drains()) >= (RELOADS if mpm != "prefork" else ONCE + 1), one.drains)
    print(f"{len(tunnels)} tunnels: {figures(one)}")
    assert not one.server.log.matching("WSF0202|WSF030")


@pytest.mark.timeout(1200 if LONG else 180)
def test_tls_tunnels_outlive_many_children(site, client, certificate):
    """MaxConnectionsPerChild, with other requests between."""
    one = site("event", f"{BY_FORK}\nMaxConnectionsPerChild {PER_CHILD}")
    tls = certificate.client_context("tls1.3")
    tunnels = []
    for _ in range(TUNNELS):
        tunnels.append(tunnel(client, one, tls))
        for _ in range(PER_CHILD - 2):
            with client(one.plain) as talk:
                assert talk.ask(http.request("/page", fields=[("Connection", "close")])).status == 200
    for talk in tunnels:
        talk.echoes(os.urandom(2000))
    wait.until(lambda: len(one.drains()) > ONCE, one.drains)
    print(f"{len(tunnels)} tunnels: {figures(one)}")
    assert not one.server.log.matching("WSF0202|WSF030")


def test_memory_of_ended_tunnels_is_given_back(site, client, certificate):
    """A process with the last few of many tunnels does not hold for days what all of them took: what is free lies
    between what they have, and the C library keeps it."""
    # Those that have left OpenSSL take too little to see.
    one, tls = site("event", BY_FORK), certificate.client_context()
    tunnels = [tunnel(client, one, tls) for _ in range(150)]
    one.server.reload()
    [drain] = wait.until(one.drains, "a process has the tunnels")
    wait.until(lambda: len(procfs.connections(drain)) == 300, "all of them")
    begin = procfs.private_kib(drain)
    # Every twentieth stays: it was opened between others.
    for number, talk in enumerate(tunnels):
        if number % 20:
            talk.close()
    left = [talk for number, talk in enumerate(tunnels) if number % 20 == 0]
    wait.until(lambda: one.count("Tunnels") == len(left), lambda: f"{len(left)} are left, {one.count('Tunnels')} are there")
    # Without it, it does not fall at all.
    wait.until(lambda: procfs.private_kib(drain) < 0.85 * begin,
               lambda: f"its memory falls: {begin} KiB with 150 tunnels, {procfs.private_kib(drain)} with {len(left)}")  # fmt: skip
    print(f"{begin} KiB with 150 tunnels, {procfs.private_kib(drain)} KiB with {len(left)}")
    for talk in left:
        talk.echoes()
