"""Very many tunnels: listed and closed without a pause for those that go on. By hand with as many as
`WSF_MANY_TUNNELS` says, `-s` prints the figures."""

import http.client
import json
import os
import time

import pytest

from harness import statuspage, wait
from harness.program import Program

COUNT = int(os.environ.get("WSF_MANY_TUNNELS", "1000"))
#: Tunnels of a process: within the usual limit of descriptors, of which its client and its back end need one each.
MOST = 7000


class Crowd(Program):
    """Both ends of so many tunnels, in a process of their own: see harness/crowd.py."""

    def __init__(self, count):
        super().__init__("crowd", count)
        self.count, self.backend = count, self.greeting

    def open(self, port, path):
        """Opens them."""
        assert self.ask(f"{port} {path}") == "open"

    def check_closed(self):
        """All of them have got the Close frame."""
        assert self.ask("closed?") == "closed"


@pytest.fixture
def crowds():
    made = [Crowd(min(MOST, COUNT - at)) for at in range(0, COUNT, MOST)]
    yield made
    for one in made:
        one.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_very_many_are_listed_and_closed_without_a_pause(httpd, client, crowds, probe):
    server = httpd()
    routes = "\n".join(f'ProxyPass "/{at}/" "{crowd.backend}/"' for at, crowd in enumerate(crowds))
    server.port = server.vhost(f"""WSForward On
WSForwardRelay On
{statuspage.SECTION.format(statuspage.ACTIONS)}
ProxyPass "/status" "!"
ProxyPass "/probe" "http://127.0.0.1:{probe.port}/"
{routes}""")
    server.start()
    page = statuspage.Page(server, client, server.port)
    probe.begin(server.port)
    alone = probe.took().longest
    for at, crowd in enumerate(crowds):
        # What one child may have is not enough for all: those of before go on in drain processes.
        if at:
            server.reload()
        crowd.open(server.port, f"/{at}/")
    wait.until(lambda: page.metric("tunnels") == COUNT + 1, lambda: f"{page.metrics()}")
    time.sleep(1)
    probe.took()
    time.sleep(2)
    idle = probe.took().longest
    took = []
    for _ in range(5):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        begin = time.monotonic()
        connection.request("GET", "/status?tunnels")
        body = connection.getresponse().read()
        took.append(time.monotonic() - begin)
        connection.close()
    listing = probe.took().longest
    assert len(json.loads(body)) == COUNT + 1
    begin = time.monotonic()
    assert sum(page.close(backend=crowd.backend, code=4001) for crowd in crowds) == COUNT
    told = time.monotonic() - begin
    wait.until(lambda: page.metric("tunnels") == 1, lambda: f"{page.metrics()}", 60, every=0.2)
    ended = time.monotonic() - begin
    closing = probe.took().longest
    for crowd in crowds:
        crowd.check_closed()
    print(f"{COUNT} tunnels: listed in {min(took) * 1000:.0f} to {max(took) * 1000:.0f} ms ({len(body)} bytes), "
          f"told to close in {told * 1000:.0f} ms, all ended after {ended:.1f} s; longest echo, in ms: {alone * 1000:.1f} alone, "
          f"{idle * 1000:.1f} beside them, {listing * 1000:.1f} while they are listed, {closing * 1000:.1f} while they end")  # fmt: skip
    assert min(took) < wait.scaled(max(0.3, 0.3 * COUNT / 20000))
    assert max(listing, closing) < wait.scaled(0.1) + idle
