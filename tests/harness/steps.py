"""Steps of a back end's script: callables that get the back end's `Connection`."""

import time

from . import http, procfs, wait, websocket
from .websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame


def keep(_connection):
    """As the last step: the connection stays open for the next request."""


def close(connection):
    """FIN, after close_notify on TLS."""
    connection.close()


def reset(connection):
    """RST."""
    connection.reset()


def half_close(connection):
    """Sends no more, but reads on."""
    connection.half_close()


def wait_for(event, timeout=30):
    """Waits until the test sets the threading.Event."""
    def step(connection):
        end = time.monotonic() + timeout
        while not event.wait(0.05):
            if connection.backend.stopping(connection) or time.monotonic() > end:
                connection.close()
                return
    return step


def until_read(connection):
    """Waits until the peer has read all that was sent: what follows is another read of its."""
    here, there = connection.sock.getsockname()[1], connection.sock.getpeername()[1]

    def read():
        sent, arrived = procfs.tcp_socket(here, there), procfs.tcp_socket(there, here)
        return not (sent and arrived) or (sent[0] == 0 and arrived[1] == 0)
    wait.until(read, "the peer reads what was sent")


def drip(data, every):
    """Sends `data` one byte at a time, every so many seconds."""
    def step(connection):
        for byte in data:
            connection.send(bytes([byte]))
            time.sleep(every)
    return step


def repeat(data, most):
    """Sends `data` again and again until the peer cuts or `most` bytes went out."""
    def step(connection):
        start = connection.sent
        while connection.sent - start < most:
            connection.send(data)
    return step


def drain(connection):
    """Reads to the end of the peer's sending and keeps all of it in `received`."""
    while data := connection.recv():
        connection.received += data


def silence(connection):
    """Says nothing until the peer ends."""
    drain(connection)


def switch(fields=(), *, without=(), upgrade=None, accept=None, status="HTTP/1.1 101 Switching Protocols", then=b""):
    """The 101 that is right for the request, with the test's own fields and its omissions; the peer gets
    it and `then` by one read."""
    def step(connection):
        asked = connection.request
        key = (asked.all("Sec-WebSocket-Key") or [""])[0].encode()
        given = [("Upgrade", upgrade or (asked.all("Upgrade") or ["websocket"])[0]),
                 ("Connection", "Upgrade"),
                 ("Sec-WebSocket-Accept", accept or websocket.accept(key).decode())]
        leave = {name.lower() for name in without}
        lines = [status]
        lines += [f"{name}: {value}" for name, value in given if name.lower() not in leave]
        lines += [f"{name}: {value}" for name, value in fields]
        connection.send("\r\n".join([*lines, "", ""]).encode("latin-1") + then)
    return step


def websocket_echo(connection):
    """Echoes messages, answers pings, answers a Close with the same Close and ends."""
    while True:
        try:
            frame = websocket.read_frame(connection.recv_exactly)
        except EOFError:
            return
        if frame.opcode in (TEXT, BINARY, CONTINUATION, CLOSE):
            connection.send(frame.encode(mask=False))
        elif frame.opcode == PING:
            connection.send(Frame(PONG, frame.payload).encode(mask=False))
        if frame.opcode == CLOSE:
            return


def echo(connection):
    """Sends every byte back until the peer ends its sending."""
    while data := connection.recv():
        connection.send(data)


def body(connection):
    """Reads the body of the request into `received`, without its chunks."""
    asked = connection.request
    size = int((asked.all("Content-Length") or ["0"])[0])
    if asked.all("Transfer-Encoding"):
        while (count := int(_read_line(connection), 16)) > 0:
            connection.received += connection.recv_exactly(count)
            _read_line(connection)
        _read_line(connection)
    elif size:
        connection.received += connection.recv_exactly(size)


def websocket_or_page(connection):
    """A handshake gets its 101 and an echo, anything else a page; more requests may follow."""
    asked = connection.request
    if "Upgrade" in asked:
        switch()(connection)
        websocket_echo(connection)
        connection.close()
        return
    body(connection)
    page = b"plain\n"
    answer = http.page(page)
    connection.send(answer if asked.method != "HEAD" else answer[: -len(page)])


def _read_line(connection):
    """The next line, without its end."""
    line = b""
    while not line.endswith(b"\r\n"):
        line += connection.recv_exactly(1)
    return line[:-2]


WEBSOCKET_OR_PAGE = [websocket_or_page, keep]
