"""A wall clock that is set while tunnels are open: by an hour forwards, and backwards."""

import pytest

from harness import http, statuspage, wait
from harness.wallclock import WallClock

#: Rules that count time. Whatever the clock says, none of it has passed.
RULES = """WSForwardIdleTimeout 20min
WSForwardMaxLifetime 20min
WSForwardPing 10min
WSForwardAccessLogInterval 10min"""
HOUR = 3600


@pytest.fixture
def clock(scratch):
    """That of servers which are started while it is `seen`."""
    return WallClock(scratch)


def test_no_tunnel_is_older_than_it_is(httpd, backend, client, clock):
    """An administrator who closes what is older than half an hour closes none that has just opened."""
    with clock.seen():
        page = statuspage.start(httpd(), client, backend(), RULES)
    talk = client(page.port)
    assert talk.ask(http.handshake()).status == 101
    for hours in (1, -1, 0):
        clock.set(hours)
        [tunnel] = page.wait_tunnels(1)
        assert tunnel["seconds"] <= wait.scaled(60), (hours, tunnel)
        assert page.tunnels(older=HOUR // 2) == [] and page.close(older=HOUR // 2) == 0
        talk.echoes()
    # It goes to a drain process while the clock is wrong, and is right again there.
    clock.set(1)
    page.server.reload()
    wait.until(lambda: page.tunnels()[0]["where"] == "drain", page.tunnels)
    for hours in (-1, 0):
        clock.set(hours)
        assert page.tunnels()[0]["seconds"] <= wait.scaled(60)
        talk.echoes()
