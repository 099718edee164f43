"""An access log with everything that the module knows of a tunnel, and tunnels that leave lines in it."""

from . import http, wait

#: Everything that a tunnel's end says, and what is known before.
WS = ("duration", "bytes-up", "bytes-down", "messages-up", "messages-down", "by", "reason",
      "code-client", "code-backend", "backend", "id")  # fmt: skip
FORMAT = "line %r|%>s|%D|%T|%{ms}T|%{us}T|%I|%O|%S|" + "|".join(f"%{{{name}}}^WS" for name in WS)
#: Who ended it, here and in WSF0202.
BY = {"client": "client", "back end": "backend", "server": "server"}
NAMES = ("request", "status", "D", "T", "ms", "us", "I", "O", "S", *WS)


def directives(server, more="", file="ws.log"):
    """A log of its own, in the format above."""
    escaped = FORMAT.replace('"', '\\"')
    return f'{more}\nLogFormat "{escaped}" ws\nCustomLog "{server.directory}/{file}" ws\nLogLevel wsforward:info'


def lines(server, file="ws.log", count=None, request="", timeout=wait.DEADLINE):
    """The lines of that log as dicts, once there are so many."""
    path = server.directory / file

    def found():
        text = path.read_text() if path.exists() else ""
        assert not text or text.endswith("\n") or count is not None
        # One that is being written may be there in part.
        whole = text[: text.rfind("\n") + 1].splitlines()
        rows = [line.removeprefix("line ") for line in whole if line.startswith("line ") and request in line]
        return [dict(zip(NAMES, row.split("|"), strict=True)) for row in rows]

    if count is None:
        return found()
    return wait.until(lambda: len(found()) >= count and found(), lambda: f"{count} lines; {found()}", timeout)


def frame(payload, opcode=0x81):
    """A client's frame."""
    return bytes([opcode, 0x80 | len(payload)]) + bytes(4) + payload


def tunnel(talk, path="/"):
    """Opens one, and has three messages go up and down."""
    assert talk.ask(http.handshake(path)).status == 101
    for _ in range(3):
        talk.echoes(frame(b"hello"))


def close(talk, code=1000):
    """A client's orderly end: its Close frame, then all that comes, before it closes its socket."""
    talk.send(frame(code.to_bytes(2, "big"), 0x88))
    talk.end()
    talk.close()
