"""A back end on a unix socket that is gone altogether, and a client that does nothing about it."""

from harness import relayed, steps, wait


def test_back_end_that_is_gone_altogether(httpd, backend, client):
    origin, server = backend(unix=True), httpd()
    port = server.vhost(f'WSForward On\nWSForwardRelay On\nProxyPass "/" "{origin.url("http")}"')
    server.start()
    origin.answers(steps.switch(), b"bye", steps.close)
    talk = relayed.opened(server, client(port, None))
    assert talk.read_to_end() == b"bye"
    relayed.wait_figure(server, "Tunnels", 0)
    [end] = wait.until(lambda: relayed.ends(server), "its line")
    assert (end.by, end.why, end.down) == ("back end", "closed", 3)
