"""Very many hand-overs at once, every byte checked: before, with and behind the 101, KeyUpdates in
flight, records cut anywhere, 20 MB bursts at the switch, TLS of both versions on both sides.

About 20 s for each MPM, and the same bytes each time; `WSF_STRESS=long` is for by-hand runs, which make
up others. Figures: `pytest -rP` shows them.
"""

import os
import re
import threading

import pytest

from harness import relayed, wait
from harness.stresspeer import PLAIN, TLS12, TLS13, StressPeer

pytestmark = pytest.mark.slow

LONG = os.environ.get("WSF_STRESS") == "long"
MPMS = ["event", "worker", "prefork"]
#: Tunnels in all, and at a time.
COUNT, AT_ONCE = (6000, 600) if LONG else (900, 300)
#: A third of it is enough on a quiet machine.
SECONDS = 900 if LONG else 240
#: Prefork's workers are processes: what is not handed over yet holds one.
WORKERS = {"event": "", "worker": "", "prefork": "ServerLimit 64\nMaxRequestWorkers 64\nStartServers 16"}


@pytest.fixture
def peer(certificate):
    made = StressPeer(certificate)
    yield made
    made.close()


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("mpm", MPMS)
def test_every_byte_of_very_many_tunnels(httpd, peer, mpm):
    server = httpd(mpm=mpm)
    server.directives(WORKERS[mpm] + "\nLogLevel wsforward:info")
    peer.vhosts(server)
    server.start()
    begin = relayed.figures(server)
    seed = int.from_bytes(os.urandom(4), "big") if LONG else 1
    result, failures = peer.run(count=COUNT, at_once=AT_ONCE, seed=seed, bursts=20, burst=20_000_000,
                                size=200_000, rounds=60, seconds=SECONDS)  # fmt: skip
    relayed.wait_figure(server, "Tunnels", 0)
    grown = {name: value - begin[name] for name, value in relayed.figures(server).items()}
    print(f"{mpm}, seed {seed}: {result}", {name: value for name, value in grown.items() if value})
    assert not failures, "\n".join([f"seed {seed}", *failures])
    assert result["clients"] == result["origins"] == COUNT
    # Of either end's own, and httpd's in answer to those that asked for one.
    updates = {name: value for name, value in result.items() if name.endswith("key_updates")}
    assert len(updates) == 4 and min(updates.values()) >= COUNT, updates
    # All of them talk long enough to be handed over, and none is lost on the way.
    assert grown["HandedOver"] == grown["Ended"] == grown["Ended-closed"] == COUNT
    assert not any(value for name, value in grown.items() if name.startswith(("Fallback", "Refused")))
    # What the relay carried is a part of all bytes: the rest went before the hand-over.
    assert grown["BytesUp"] + grown["BytesDown"] <= result["bytes"]


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("mpm", MPMS)
@pytest.mark.parametrize("kinds", [f"{PLAIN}", f"{PLAIN},{TLS12},{TLS13}"], ids=["plain", "all"])
def test_every_byte_while_children_are_recycled(httpd, peer, mpm, kinds):
    """Children end after fifty connections each: their tunnels go on elsewhere in the midst of it."""
    server = httpd(mpm=mpm)
    start = "StartServers 8" if mpm == "prefork" else "ThreadsPerChild 8"
    server.directives(f"{start}\nMaxConnectionsPerChild 50\nLogLevel wsforward:info")
    peer.vhosts(server)
    server.start()
    seed = int.from_bytes(os.urandom(4), "big") if LONG else 1
    count = 3000 if LONG else 600
    result, failures = peer.run(count=count, at_once=100, seed=seed, size=20_000, rounds=300, clients=kinds,
                                origins=kinds, seconds=SECONDS)  # fmt: skip
    relayed.wait_figure(server, "Tunnels", 0)
    figures = relayed.figures(server)
    print(f"{mpm}, seed {seed}: {result}", {name: value for name, value in figures.items() if value})
    if mpm == "event":
        # A child of stock httpd's, too, resets a connection now and then that it has just accepted when it ends.
        unserved = [failure for failure in failures if re.search("Connection reset.*, got 0 of", failure)]
        assert len(unserved) <= count // 50
        failures = [failure for failure in failures if failure not in unserved]
        count -= len(unserved)
    assert not failures, "\n".join([f"seed {seed}", *failures])
    assert result["clients"] == result["origins"] == count
    assert figures["HandedOver"] == figures["Ended"] == figures["Ended-closed"] == count
    def lines():
        return [line for line in server.access() if " 101 " in line]
    wait.until(lambda: len(lines()) >= count, lambda: f"the lines of all tunnels: {len(lines())} of {count}")
    served = [line.rsplit(maxsplit=1)[1] for line in lines()]
    assert len(served) == count
    assert len(set(served) - set(map(str, server.children))) >= count // 100


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("mpm", MPMS)
def test_every_byte_while_the_server_reloads(httpd, peer, mpm):
    """Tunnels at full speed, plain and TLS on either side, change their process again and again."""
    server = httpd(mpm=mpm)
    # Each generation leaves processes, and here many come in a short time.
    server.directives(WORKERS[mpm] + "\nWSForwardMaxDrainProcesses 1024\nLogLevel wsforward:info")
    peer.vhosts(server)
    server.start()
    seed = int.from_bytes(os.urandom(4), "big") if LONG else 1
    count = 2000 if LONG else 300
    peer.begin(count=count, at_once=60, seed=seed, bursts=150, burst=20_000_000, size=500_000, rounds=200,
               seconds=SECONDS)  # fmt: skip
    ended, reloads = [], 0
    waiting = threading.Thread(target=lambda: ended.append(peer.end()))
    waiting.start()
    while waiting.is_alive():
        server.reload()
        reloads += 1
        waiting.join(0.3)
    [(result, failures)] = ended
    relayed.wait_figure(server, "Tunnels", 0)
    figures = relayed.figures(server)
    print(f"{mpm}, seed {seed}, {reloads} reloads: {result}", {name: value for name, value in figures.items() if value})
    assert not failures, "\n".join([f"seed {seed}", *failures])
    assert result["clients"] == result["origins"] == count
    assert figures["HandedOver"] == figures["Ended"] == figures["Ended-closed"] == count
    assert reloads > 3
