"""WSForwardRelay On and Off beside each other, for other protocols, with balancers, without mod_ssl."""

import pytest

from harness import http, relayed, steps, wait, websocket

MPMS = ["event", "worker", "prefork"]


@pytest.mark.parametrize("mpm", MPMS)
def test_relay_off_keeps_the_tunnel_in_its_thread(httpd, backend, client, mpm):
    """Off in a section below On; not a fallback, since nobody asked for more."""
    origin, server = backend(), httpd(mpm=mpm)
    port = server.vhost(f"""WSForward On
WSForwardRelay On
ProxyPass "/" "{origin.url("http")}"
<Location "/off">
    WSForwardRelay Off
</Location>""")
    server.start()
    with relayed.Counted(server, HandedOver=0, open=0):
        talk = client(port)
        assert talk.ask(http.handshake("/off")).status == 101
        talk.echoes()
        # A child of prefork may still be at what came before.
        wait.until(lambda: int(server.status()["BusyWorkers"]) == 2, "the tunnel holds a worker, and nobody else")
        talk.close()
    with relayed.Counted(server, HandedOver=1, open=1):
        relayed.opened(server, client(port)).echoes()
        server.wait_idle()


def test_protocol_of_ones_own(httpd, backend, client):
    """A token other than websocket is opaque: its bytes are not looked at."""
    origin, server = backend(), httpd()
    port = server.vhost(f"""WSForward On
WSForwardRelay On
WSForwardProtocols my/1
ProxyPass "/" "{origin.url("http")}" upgrade=ANY""")
    server.start()
    origin.answers(steps.switch(upgrade="my/1", without=["Sec-WebSocket-Accept"]), steps.echo, steps.close)
    talk = relayed.opened(server, client(port), upgrade="my/1", without=["Sec-WebSocket-Key"])
    # As a frame this would be nonsense.
    talk.send(b"\xff" * 100)
    assert talk.read_exactly(100) == b"\xff" * 100
    talk.half_close()
    assert talk.end() == "eof"
    [end] = relayed.ends(server)
    assert (end.up, end.down, end.client_close) == (100, 100, None)


@pytest.mark.parametrize("mpm", MPMS)
def test_balancer_skips_a_member_that_is_down(httpd, backend, client, mpm):
    """The tunnel of the second attempt is handed over as well."""
    alive, server = backend(), httpd(mpm=mpm)
    dead = backend()
    dead.close()
    server.expect_log("AH00957|AH01114|AH00959|AH00940", certain=False)
    port = server.vhost(f"""WSForward On
WSForwardRelay On
<Proxy "balancer://two">
    BalancerMember "{dead.url("http", "")}" lbset=0
    BalancerMember "{alive.url("http", "")}" lbset=1
</Proxy>
ProxyPass "/" "balancer://two/\"""")
    server.start()
    with relayed.Counted(server, HandedOver=1, open=1):
        relayed.opened(server, client(port)).echoes()


def test_without_mod_ssl(httpd, backend, client):
    """No libssl in the process: plain tunnels are relayed."""
    origin, server = backend(), httpd(without=["ssl", "socache_shmcb"])
    port = server.vhost(f'WSForward On\nWSForwardRelay On\nProxyPass "/" "{origin.url("http")}"')
    server.start()
    with relayed.Counted(server, HandedOver=1, Ended_closed=1):
        talk = relayed.opened(server, client(port)).echoes()
        talk.send_frame(websocket.close_frame(1000))
        assert talk.end() == "eof"
        talk.close()
