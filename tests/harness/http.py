"""HTTP/1.1 messages, byte for byte: nothing is normalised that a test could want to see."""

from .websocket import KEY


class Message:
    """A start line and fields in the order and the spelling in which they came."""

    def __init__(self, head):
        self.head = head
        lines = head.split(b"\r\n")
        self.start = lines[0].decode("latin-1")
        self.fields = []
        for line in lines[1:]:
            name, colon, value = line.decode("latin-1").partition(":")
            if colon:
                self.fields.append((name, value.strip(" \t")))

    def all(self, name):
        """The values of all fields of that name."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name):
        """The value of the only field of that name, None if there is none."""
        values = self.all(name)
        assert len(values) < 2, f"{name} more than once: {values}"
        return values[0] if values else None

    def __contains__(self, name):
        return bool(self.all(name))

    def __repr__(self):
        return f"<{self.head!r}>"


class Request(Message):
    """A request head as a back end saw it."""

    @property
    def method(self):
        return self.start.split(" ")[0]

    @property
    def target(self):
        return self.start.split(" ")[1]


class Response(Message):
    """A response as a client saw it."""

    def __init__(self, head, body=b""):
        super().__init__(head)
        self.body = body

    @property
    def status(self):
        return int(self.start.split(" ")[1])

    @property
    def reason(self):
        return self.start.split(" ", 2)[2]


def request(path="/", *, method="GET", version="HTTP/1.1", host="site.test", fields=(), body=b""):
    """The bytes of a request; `fields` are (name, value) pairs and come in that order."""
    lines = [f"{method} {path} {version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def handshake(path="/", *, connection="Upgrade", upgrade="websocket", fields=(), without=(), **kwargs):
    """The bytes of a WebSocket handshake (RFC 6455 4.1), with what a test changes about it.

    `connection` and `upgrade` may be lists: one field line each. Names in `without` are left out.
    """
    given = {name.lower() for name, _ in fields}
    lines = [("Connection", value) for value in _list(connection)]
    lines += [("Upgrade", value) for value in _list(upgrade)]
    lines += [("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Version", "13")]
    leave = {name.lower() for name in without} | given
    lines = [(name, value) for name, value in lines if name.lower() not in leave]
    return request(path, fields=[*lines, *fields], **kwargs)


def _list(value):
    return [value] if isinstance(value, str) else list(value or ())


def page(body=b"plain\n", status="200 OK", fields=(), version="HTTP/1.1"):
    """The bytes of a response with Content-Length."""
    lines = [f"{version} {status}", *(f"{name}: {value}" for name, value in fields)]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
