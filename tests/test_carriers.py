"""The fixture `carrier`: a tunnel is where the test says that it is."""

import pytest

from harness import relayed, relaysite, wait, websocket
from harness.carriers import carriers, drain_process
from harness.relaysite import CLIENTS, ORIGINS

pytestmark = pytest.mark.carriers("thread", "relay", "drain", "http2")


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module")
def server(carrier, shared_httpd, origins):
    return carrier.start(shared_httpd, origins)


def is_carried(server, talk, carrier):
    """Whether the tunnel is where its carrier's name says."""
    relayed_ones = relayed.figures(server)["Tunnels"]
    if carrier.is_relay:
        return relayed_ones == 1 and bool(drain_process(talk)) == (carrier.name == "drain")
    # The one that answers is busy too; what stays of a child that has begun is not.
    return relayed_ones == 0 and (carrier.name == "http2" or int(server.status()["BusyWorkers"]) == 2)


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_tunnel_is_where_its_carrier_is(server, carrier, tunnel, kind, to):
    talk = tunnel(kind, to)
    wait.until(lambda: is_carried(server, talk, carrier), lambda: f"it is there; {server.status()}")
    for size in (0, 1, 200_000):
        talk.echoes(b"x" * size)
    closes = websocket.close_frame(4001)
    talk.send_frame(closes)
    assert talk.read_frame() == closes
    talk.end()
    talk.close()
    end = carrier.ended(server, talk, "client|back end", "closed")
    assert (end.client_close, end.origin_close) == ((4001, 4001) if carrier.is_relay else (None, None))
    relayed.wait_figure(server, "DrainProcesses", 0)


@pytest.mark.carriers("relay")
def test_a_tunnel_elsewhere_is_a_failure(server, carrier, tunnel):
    [thread, *_] = carriers("thread")
    talk = tunnel()
    wait.until(lambda: is_carried(server, talk, carrier), "it is relayed")
    assert not is_carried(server, talk, thread)
    talk.half_close()
    talk.end()
    with pytest.raises(AssertionError, match="where=None"):
        thread.ended(server, talk, "client", "closed")
