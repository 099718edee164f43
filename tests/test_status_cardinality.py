"""The number of samples is bounded, whatever clients send and however many virtual hosts there are."""

import random

import pytest

from harness import http, statuspage, wait, websocket

HOSTS = 1200
#: Samples of one virtual host that each of these tunnels may make: opened, closed, handshakes, bytes, messages.
EACH = 1 + 18 + 1 + 2 + 4
#: What has no virtual host.
OTHERS = 150


@pytest.fixture
def page(httpd, client, backend):
    """A server with very many virtual hosts, by their names."""
    origin = backend()
    server = httpd()
    server.port = server.vhost(f"""ServerName tunnels.example
WSForward On
WSForwardRelay On
{statuspage.SECTION.format(statuspage.ACTIONS)}
ProxyPass "/status" "!"
ProxyPass "/" "{origin.url("http", "")}/\"""")
    for number in range(HOSTS):
        server.directives(f"""<VirtualHost 127.0.0.1:{server.port}>
ServerName h{number}.example
WSForward On
WSForwardRelay On
ProxyPass "/" "{origin.url("http", "")}/"
</VirtualHost>""")
    server.start()
    return statuspage.Page(server, client, server.port)


def ended(page, client, host, code):
    talk = client(page.port)
    assert talk.ask(http.handshake(host=host)).status == 101
    talk.send_frame(websocket.close_frame(code))
    talk.read_frame()
    talk.close()


@pytest.mark.slow
def test_samples_are_bounded(page, client):
    chance = random.Random(1)
    # Codes of a client's choice, at one virtual host.
    for _ in range(60):
        ended(page, client, "h0.example", chance.randrange(1000, 65536))
    page.wait_metric(60, "tunnels_closed_total", vhost=f"h0.example:{page.port}")
    of_one = [labels for (name, labels) in page.metrics() if ("vhost", f"h0.example:{page.port}") in labels]
    assert len(of_one) <= EACH
    assert page.metric("tunnels_closed_total", vhost=f"h0.example:{page.port}", code="other") >= 50
    # Hosts that do not exist are the first virtual host.
    for number in range(20):
        ended(page, client, f"no{number}.example", 1000)
    names = {dict(labels).get("vhost") for _, labels in page.metrics()}
    assert not [name for name in names if name and name.startswith("no")]
    # More virtual hosts than are told apart.
    for number in range(1, HOSTS):
        ended(page, client, f"h{number}.example", 1000)
    wait.until(lambda: page.metric("tunnels_closed_total") == 60 + 20 + HOSTS - 1, lambda: "all ended")
    samples = page.metrics()
    names = {dict(labels).get("vhost") for _, labels in samples} - {None}
    assert len(names) <= 1025
    assert "other" in names
    assert page.metric("tunnels_opened_total") == page.metric("tunnels_closed_total")
    assert len(samples) <= 1025 * EACH + OTHERS
    print(f"{len(samples)} samples of {len(names)} virtual hosts")
