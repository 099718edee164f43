"""What can carry an open tunnel, so that one test holds for all of it.

An open tunnel is carried by one of these:

    thread  its worker thread, as with `WSForwardRelay Off`
    relay   the relay of the child that served its handshake
    drain   the relay of a drain process, since that child has ended
    http2   a thread of mod_http2: a stream, as with `H2WebSockets on`

A rule for open tunnels is tested once, by the same words for each carrier that it holds for:

    @pytest.fixture(scope="module")
    def server(carrier, shared_httpd, origins):
        return carrier.start(shared_httpd, origins, "WSForwardIdleTimeout 1s")

    @pytest.mark.carriers("thread", "relay", "drain", "http2")
    @pytest.mark.parametrize("kind", CLIENTS)
    def test_rule(carrier, server, tunnel, kind):
        talk = tunnel(kind, "tcp", b"said by the back end", steps.drain)
        ...
        carrier.ended(server, talk, "client", "closed")

The marker names the carriers and, by `mpms=[...]`, other MPMs than those of CARRIERS. It may stand in
front of a test, or for a whole file in its `pytestmark`; without one, thread and relay are meant. The
files that use it have the fixtures `origins` (relaysite.origins) and `server` (as above); `tunnel` and
`carrier` are defined here. A stream of HTTP/2 has a client with TLS only: tests of a plain client
(`kind`) leave it out.
"""

import functools
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import http, procfs, relayed, relaysite, steps, wait
from .h2client import Http2Client
from .websocket import Frames

#: The carriers, in the order in which their tests run, each with the MPMs on which its tests run unless
#: they say otherwise. A thread of worker is one of event; prefork's is a process.
CARRIERS = {
    "thread": ["event", "prefork"],
    "relay": ["event", "worker", "prefork"],
    "drain": ["event", "prefork"],
    "http2": ["event", "worker"],
}
DEFAULT = ("thread", "relay")
#: What mod_proxy's tunnel says when a client goes while its bytes wait.
FLUSHING_FAILED = "AH10221: proxy: websocket: client flushing failed|AH03307: ap_proxy_transfer_between_connections"


@dataclass(frozen=True)
class Carrier:
    """One carrier on one MPM; see the head of this file."""

    name: str
    mpm: str

    def __str__(self):
        return f"{self.name}-{self.mpm}"

    @property
    def where(self):
        """What the line of a tunnel's end (WSF0202) says of where it was."""
        return None if self.is_relay else "thread"

    @property
    def is_relay(self):
        """Whether the relay's code carries it: it reads frames, so that it knows Close codes."""
        return self.name in ("relay", "drain")

    @property
    def directives(self):
        """The lines of a virtual host whose tunnels this carries."""
        if self.name == "thread":
            return "WSForwardRelay Off"
        if self.name == "http2":
            return "WSForwardRelay On\nProtocols h2 http/1.1\nH2WebSockets on"
        return "WSForwardRelay On"

    def httpd(self, make, **options):
        """A server on this MPM, made by the fixture `httpd` or `shared_httpd`."""
        if self.name != "http2":
            return make(mpm=self.mpm, **options)
        made = make(mpm=self.mpm, extra=[*options.pop("extra", ()), "http2"], **options)
        made.expect_log("WSF0120: H2WebSockets on")
        return made

    def start(self, make, origins, more="", ports=None, **options):
        """A server that runs, whose tunnels this carries; `more` and `ports` as relaysite.start has them."""
        return relaysite.start(self.httpd(make, **options), origins, more, self.directives, ports)

    def open(self, server, origins, client, certificate, kind, to, script, path="/", port=None, **options):
        """Opens a tunnel from a client of this kind to this back end, and returns the client once the
        carrier has it. `script` is what the back end does from then on."""
        carried = threading.Event()
        # In a thread the tunnel is from the first byte on.
        first = [steps.switch(), steps.wait_for(carried)] if self.is_relay else [steps.switch()]
        origins[to].answers(*first, *(script or (steps.websocket_echo, steps.close)))
        tls = None if kind == "plain" else certificate.client_context(kind, ["h2"] if self.name == "http2" else ())
        port = server.ports[port or ("tls" if tls else "plain")]
        path = path if to == "tcp" else f"/tls{path}"
        if self.name == "http2":
            talk = StreamClient(port, tls, path)
        else:
            talk = client(port, tls, **options)
            self._ask(server, talk, path)
        carried.set()
        talk.origin = origins[to].connections[-1]
        return talk

    def _ask(self, server, talk, path):
        """The handshake of an HTTP/1.1 client."""
        if self.name == "thread":
            assert talk.ask(http.handshake(path)).status == 101
            return
        relayed.opened(server, talk, path)
        if self.name == "drain":
            server.reload()
            wait.until(lambda: drain_process(talk), "the tunnel is in a drain process")

    def ended(self, server, talk, by, why):
        """Waits for the tunnel's end, asserts who ended it, why and where, and returns its record.

        `by` and `why` are regular expressions where more than one answer is right.
        """
        end = relaysite.ended(server, talk, by, why)
        assert end.where == self.where, end
        return end


@functools.cache
def carriers(name, mpms=None):
    """This carrier on its MPMs. Always the same objects: pytest compares parameters by identity."""
    return [_carrier(name, mpm) for mpm in mpms or CARRIERS[name]]


@functools.cache
def _carrier(name, mpm):
    return Carrier(name, mpm)


def drain_process(talk):
    """The drain process that has the tunnel of this client, None if there is none."""
    peer = procfs.tcp_socket(talk.plain.getpeername()[1], talk.plain.getsockname()[1])
    if not peer:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text() == "wsforward-drain\n" and \
                    f"socket:[{peer[2]}]" in procfs.descriptors(process.name):
                return int(process.name)
        except OSError:
            continue
    return None


class StreamClient(Frames):
    """A tunnel over HTTP/2, alone on its connection, with the methods of a RawClient."""

    def __init__(self, port, tls, path):
        self._h2 = Http2Client(port, tls)
        self._stream = self._h2.websocket(path)
        assert self._stream.status == 200
        self.sock = self._h2.sock
        living.append(self)

    def send(self, data):
        """Sends all of it, waiting for window where there is none."""
        self._stream.send(data)
        return self

    def read_exactly(self, size):
        """Exactly so many bytes."""
        return self._stream.read_exactly(size)

    def read_to_end(self):
        """All bytes until the server ends its sending."""
        return self._stream.read_to_end()

    def end(self):
        """Reads on and says how the server ended the stream: "end of stream" or "reset"."""
        self._stream.read_to_end()
        return "end of stream" if self._stream.reset is None else "reset"

    def half_close(self):
        """Ends the sending, keeps the reading."""
        self._stream.end()

    def reset(self):
        """Ends the stream abruptly: RST_STREAM, CANCEL."""
        self._stream.cancel()

    def close(self):
        """Closes the connection."""
        self.sock.close()
        if self in living:
            living.remove(self)


#: Clients of the running test: its end closes them.
living = []


# What pytest calls.


def pytest_configure(config):
    config.addinivalue_line("markers", "carriers(*names, mpms=None): what carries the tunnels of a test; see harness/carriers.py")


def pytest_generate_tests(metafunc):
    if "carrier" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("carriers")
    names, mpms = (mark.args, mark.kwargs.get("mpms")) if mark else (DEFAULT, None)
    chosen = [one for name in names for one in carriers(name, tuple(mpms) if mpms else None)]
    metafunc.parametrize("carrier", chosen, ids=str, indirect=True, scope="module")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Leaves out what cannot be, and puts the tests of one carrier in a row, so that each server starts once."""
    wrong = [item for item in items if _carrier_of(item) and _carrier_of(item).name == "http2"
             and item.callspec.params.get("kind") == "plain"]  # fmt: skip
    if wrong:
        config.hook.pytest_deselected(items=wrong)
    files = {}
    for item in items:
        if item not in wrong:
            files.setdefault(item.path, []).append(item)
    items[:] = [item for file in files.values() for item in sorted(file, key=_turn)]


def _carrier_of(item):
    return item.callspec.params.get("carrier") if hasattr(item, "callspec") else None


def _turn(item):
    carrier = _carrier_of(item)
    return ([*CARRIERS].index(carrier.name) + 1, carrier.mpm) if carrier else (0, "")


@pytest.fixture(scope="module")
def carrier(request):
    """What carries the tunnels of a test; the marker `carriers` says which they are."""
    return request.param


@pytest.fixture
def tunnel(carrier, server, origins, client, certificate):
    """Opens tunnels: `tunnel(kind of client, kind of back end, steps, path=...)`. The steps begin when the
    carrier has the tunnel; without any the back end echoes messages."""
    def open_one(kind=None, to="tcp", *script, **options):
        kind = kind or ("tls1.3" if carrier.name == "http2" else "plain")
        return carrier.open(server, origins, client, certificate, kind, to, script, **options)
    yield open_one
    for talk in list(living):
        talk.close()
