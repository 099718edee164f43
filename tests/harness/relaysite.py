"""A server with the relay on, plain and TLS clients, plain and TLS back ends, and the end of its tunnels."""

import re

from . import relayed, wait

CLIENTS = ["plain", "tls1.2", "tls1.3"]
ORIGINS = ["tcp", "tls"]
#: WSForwardIdleTimeout below /idle, in seconds.
IDLE = 1.0


def origins(make):
    """The two back ends."""
    return {"tcp": make(name="tcp"), "tls": make(tls=True, name="tls")}


def start(server, origins, more="", relay="WSForwardRelay On", ports=None):
    """Configures and starts it; ports are in `ports`, by "plain" and "tls".

    `more` is for all virtual hosts. `ports` names further ones: `{name: (its directives, whether it has TLS)}`.
    """
    text = f"""WSForward On
{relay}
SSLProxyEngine on
SSLProxyVerify require
SSLProxyCACertificateFile {server.certificate.cert}
{more}
ProxyPass "/tls" "{origins["tls"].url("https")}"
ProxyPass "/" "{origins["tcp"].url("http")}"
<LocationMatch "^(/tls)?/idle">
    WSForwardIdleTimeout {IDLE:g}
</LocationMatch>
"""
    server.ports = {"plain": server.vhost(text), "tls": server.vhost(text, tls=True)}
    for name, (own, tls) in (ports or {}).items():
        server.ports[name] = server.vhost(f"{own}\n{text}", tls=tls)
    return server.start()


def dial(server, client, kind, **options):
    """A connected client of one of CLIENTS."""
    tls = None if kind == "plain" else server.certificate.client_context(kind)
    return client(server.ports["tls" if tls else "plain"], tls, **options)


def ended(server, talk, by, why):
    """Waits for the tunnel's end, asserts who ended it and why, and returns its record.

    `by` and `why` are regular expressions where more than one answer is right.
    """
    [end] = relayed.ends(server)
    assert re.fullmatch(by, end.by) and re.fullmatch(why, end.why), end
    wait.until(talk.origin.closed.is_set, "the back end's connection is over")
    return end
