"""Rules for very many open tunnels: what Pings cost and when they come, and that limited clients share fairly.

Few tunnels in the suite; `WSF_STRESS=long` has 20,000 that are pinged, and 1,000 that are limited. `-s` prints the figures.
"""

import contextlib
import os
import time

import pytest

from harness import statuspage, wait
from harness.ends import PARTS, Ends
from harness.network import Machine

LONG = os.environ.get("WSF_STRESS") == "long"
#: Tunnels that are pinged, how many of them one process has the ends of, and the interval in seconds.
PINGED, MOST, INTERVAL = (20_000, 6000, 30) if LONG else (200, 200, 1)
#: For how many intervals they are looked at, and how many Pings each is to get at least: who is a second late on a
#: busy machine is late by a whole short interval.
INTERVALS, LEAST = (4, 3) if LONG else (3, 1)
#: For how many intervals they are looked at before.
BEFORE = 1 if LONG else 3
#: A Ping goes up to this part of the interval before its time.
PHASES = 8
#: Processor time that Pings may cost, as a part of one processor, in the long run: 3 % where nginx needs 13.4
#: microseconds for a message of 32 bytes there and back. Where it needs more, a Ping does too: `WSF_NGINX_ECHO` is what
#: it needs here, in microseconds (`ci/bench --peers relay,nginx --only "echo ws 64"`, CPU s per million).
COST = 0.03 * float(os.environ.get("WSF_NGINX_ECHO", "13.4")) / 13.4
#: Clients that send more than they may, each as fast as it can.
LIMITED = 1000 if LONG else 50
#: What they may send in a second: messages, and bytes; for so many seconds.
RATE, BANDWIDTH, SECONDS = 10, 20_080, 15 if LONG else 2
#: Bytes of a message, without those of its header: so many fit the bandwidth of a second as the rate says.
SIZE = 2000
#: How much later than is right the last message of a client may come, as a part of the time; and at once, in seconds.
TOLERANCE, SLACK = 0.05, 1.0
ONE_CHILD = "StartServers 1\nServerLimit 1\nThreadsPerChild 25\nMaxRequestWorkers 25"


@pytest.fixture
def ends():
    """Makes programs with both ends of so many tunnels."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(contextlib.closing(Ends(*arguments)))


@pytest.fixture
def machine():
    """Another machine, which receives at its own cost."""
    try:
        made = Machine()
    except OSError as error:
        # Where root may not do it, a container may be the reason; in the whole check nothing is.
        if os.geteuid() == 0 and os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no network namespace: {error}")
    with contextlib.closing(made):
        made.receive_by_threads()
        yield made


def load():
    return " ".join(f"{one:.1f}" for one in os.getloadavg())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_pings_cost_little_and_do_not_come_together(httpd, client, machine, ends):
    """With the answers, which go on to the other side. Nobody is taken for gone.

    What it costs is the time of the relay's threads and of the kernel's thread that receives for this machine. On
    loopback that would not be told from what the peers' receiving costs: it runs in whoever sends.
    """
    crowds = [ends(min(MOST, PINGED - at), machine) for at in range(0, PINGED, MOST)]
    server = httpd()
    routes = "\n".join(f'ProxyPass "/{at}/" "{crowd.url}/"' for at, crowd in enumerate(crowds))
    server.port = server.vhost(statuspage.SECTION.format(""))
    port = server.vhost(f"""WSForward On
WSForwardRelay On
WSForwardPing {INTERVAL}s 30s
{routes}""", address=machine.ours)  # fmt: skip
    server.start()
    page = statuspage.Page(server, client, server.port)
    for at, crowd in enumerate(crowds):
        # What one child may have is not enough for all: those of before go on in drain processes.
        if at:
            server.reload()
        crowd.open(port, f"/{at}/")
    wait.until(lambda: page.metric("tunnels") == PINGED, lambda: f"{page.metrics()}", 30)

    def cpu():
        return page.metric("relay_thread_cpu_seconds_total"), machine.receiving(), time.monotonic()
    said = [crowd.fall_silent() for crowd in crowds]
    for crowd in crowds:
        crowd.seen()
    time.sleep(INTERVAL * (BEFORE + 1 / PHASES))
    first = [crowd.seen() for crowd in crowds]
    begin, before = cpu(), load()
    time.sleep(INTERVALS * INTERVAL)
    relayed, received, took = (after - then for then, after in zip(begin, cpu()))
    part = (relayed + received) / took
    later = [crowd.seen() for crowd in crowds]
    assert page.metric("tunnels") == PINGED
    pings = sum(seen[side].pings for seen in later for side in seen)
    print(f"{PINGED} tunnels, both sides pinged every {INTERVAL} s: {pings} Pings in {took:.0f} s, {part:.2%} of a processor: "
          f"{relayed / took:.2%} the relay's threads, {received / took:.2%} what is received for them; load {before} before, {load()} after")  # fmt: skip
    for side, other in ("client", "back end"), ("back end", "client"):
        for at, (one, two) in enumerate(zip(first, later)):
            assert one[side].fewest >= 1 and two[side].fewest >= LEAST, (side, one, two)
            # Each was answered, and the answer went on: those under way are few.
            sent = one[side].pings + two[side].pings
            assert abs(one[other].pongs + two[other].pongs - sent) <= sent / 20, (one, two)
            # All fell silent together.
            counts = [one[side].when[part] for part in sorted(one[side].when)]
            print(f"{side}s, {at}: the first Pings came {min(one[side].when) / PARTS - said[at]:.1f} s to "
                  f"{max(one[side].when) / PARTS - said[at]:.1f} s after the last word, at most {max(counts)} of {sum(counts)} "
                  f"in a tenth of a second; later on at most {max(two[side].when.values())}")  # fmt: skip
            if LONG:
                # Three times as many as of an even spread: a busy machine holds some up.
                most = 3 * crowds[at].count / (INTERVAL / PHASES * PARTS)
                assert max(counts) <= most and max(two[side].when.values()) <= most, (counts, two[side].when)
    assert not LONG or part <= COST


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rule", ["messages", "bytes"])
def test_many_limited_clients_get_the_same_and_harm_nobody(httpd, probe, ends, rule):
    """Each sends all at once what it may send in so many seconds: all of it comes, in order, and no sooner or later."""
    assert BANDWIDTH == RATE * (SIZE + 8)
    # What comes at once, and what comes later.
    count = RATE + RATE * SECONDS
    limit = f"WSForwardMessageRate {RATE}/s" if rule == "messages" else f"WSForwardBandwidth {BANDWIDTH}/s"
    crowd, server = ends(LIMITED), httpd()
    # All have one relay thread.
    server.directives(ONE_CHILD)
    port = server.vhost(f"""WSForward On
WSForwardRelay On
ProxyPass "/probe" "http://127.0.0.1:{probe.port}/"
ProxyPass "/" "{crowd.url}/"
<Location "/limited">
    {limit}
</Location>""")
    server.start()
    probe.begin(port)
    crowd.open(port, "/limited/")
    probe.took()
    time.sleep(SECONDS / 3)
    without, before = probe.took(), load()
    begin = time.monotonic()
    crowd.begin_sending(count, SIZE)
    time.sleep(SECONDS / 3)
    # The bursts are over.
    probe.took()
    time.sleep(SECONDS / 3)
    beside = probe.took()
    times = crowd.sent()
    took = sorted(last - begin for _, last in times)
    print(f"{LIMITED} clients, each {count} messages under {limit}: the first was through after {took[0]:.2f} s, the last "
          f"after {took[-1]:.2f} s, {SECONDS} s is right; echo beside them {beside}, beside silent ones {without}; load {before}, {load()}")  # fmt: skip
    assert took[0] >= SECONDS * (1 - TOLERANCE)
    assert took[-1] <= SECONDS * (1 + TOLERANCE) + wait.scaled(SLACK)
    assert beside.p99 <= without.p99 + wait.scaled(0.05)
