"""Both ends of very many tunnels, as a program, with what each of them sees: `python -m harness.ends COUNT ADDRESS`.

It prints the port of its back end, which has that address, reads the server's address, its port and the path that
leads there, opens the tunnels, and prints `open`. From then on every end answers Pings. It reads these lines, and answers each with a line of JSON:

    say             both ends of each tunnel say something at once, and are silent from then on: when that was
    seen            what came since this was asked last: see Seen
    send N SIZE     each client sends so many messages of so many bytes as fast as it can: for each tunnel, once its back
                    end has got them all in order, when the first and when the last one came
"""

import json
import resource
import select
import socket
import struct
import sys
import threading
import time
from collections import Counter

from .crowd import BATCH, opened
from .herd import SWITCH
from .program import Program
from .websocket import BINARY, PING, PONG, TEXT

#: An end's answer to a Ping, with a masking key of zeros where it needs one.
PONGS = {True: b"\x8a\x80\0\0\0\0", False: b"\x8a\0"}
WORDS = {True: b"\x81\x81\0\0\0\0x", False: b"\x81\x01x"}
#: The parts of a second that Pings are counted in.
PARTS = 10


class Ends(Program):
    """The running program, of so many tunnels, on a Machine or on this one; `url` is its back end's."""

    def __init__(self, count, machine=None):
        address = machine.theirs if machine else "127.0.0.1"
        super().__init__("ends", count, address, inside=machine.inside if machine else ())
        self.count, self.url = count, f"http://{address}:{self.greeting}"
        #: The server's address as the clients see it.
        self._server = machine.ours if machine else "127.0.0.1"

    def _ask(self, line):
        return json.loads(self.ask(line))

    def open(self, port, path="/"):
        """Opens them."""
        assert self._ask(f"{self._server} {port} {path}") == "open"

    def fall_silent(self):
        """Both ends of each say something, and are silent from then on; when that was."""
        return self._ask("say")

    def seen(self):
        """What came since this was asked last: `{"client": of all clients, "back end": of all back ends}`; see Seen."""
        return {name: Seen(**what, when=Counter({int(part): count for part, count in when.items()}))
                for name, (what, when) in self._ask("seen").items()}  # fmt: skip

    def begin_sending(self, count, size):
        """Each client sends so many messages of so many bytes as fast as it can; see `sent`."""
        self.say(f"send {count} {size}")

    def sent(self):
        """When the first and when the last of them came, for each tunnel, once all did."""
        return json.loads(self.hear())


class Seen:
    """What came at one kind of ends: Pings in all, the fewest of one tunnel, and Pongs in all. `when` counts Pings by
    the part of a second, of time.monotonic(), in which they came."""

    def __init__(self, pings, fewest, pongs, when):
        self.pings, self.fewest, self.pongs, self.when = pings, fewest, pongs, when

    def __repr__(self):
        return f"{self.pings} Pings, at least {self.fewest} of one, {self.pongs} Pongs"


class _End:
    """One end of a tunnel, as the program has it."""

    def __init__(self, sock, is_client):
        self.sock, self.is_client, self.data = sock, is_client, b""
        # A client has had its answer.
        self.is_open = is_client
        self.pings = self.pongs = 0
        self.times, self.unsent = [], memoryview(b"")

    def take(self, now):
        """Reads what has come, and answers it. Returns whether there is more to come."""
        data = self.sock.recv(1 << 18)
        if not data:
            return False
        self.data += data
        if not self.is_open:
            if self.data.endswith(b"\r\n\r\n"):
                self.is_open, self.data = True, b""
                self.sock.send(SWITCH)
            return True
        at, key = 0, 0 if self.is_client else 4
        while len(self.data) - at >= 2:
            first, second = self.data[at : at + 2]
            length, head = second & 0x7F, 2 + key
            if length == 126:
                if len(self.data) - at < 4:
                    break
                (length,), head = struct.unpack_from("!H", self.data, at + 2), 4 + key
            if len(self.data) - at < head + length:
                break
            self.frame(first & 0xF, self.data[at + head : at + head + min(length, 4)], now)
            at += head + length
        self.data = self.data[at:]
        return True

    def frame(self, opcode, start, now):
        if opcode == PING:
            self.pings += 1
            when[self.is_client][int(now * PARTS)] += 1
            self.sock.send(PONGS[self.is_client])
        elif opcode == PONG:
            self.pongs += 1
        elif opcode == BINARY:
            # Its number: keys are of zeros.
            assert struct.unpack("!I", start) == (len(self.times),), "a message is missing"
            self.times.append(now)
        else:
            assert opcode == TEXT, opcode


#: When Pings came at back ends and at clients.
when = [Counter(), Counter()]


def run(listener, ends, poll):
    """The thread that answers."""
    while True:
        for descriptor, event in poll.poll():
            if descriptor == listener.fileno():
                sock = listener.accept()[0]
                ends[sock.fileno()] = _End(sock, False)
                poll.register(sock, select.EPOLLIN)
                continue
            end = ends[descriptor]
            if event & select.EPOLLOUT:
                end.unsent = end.unsent[end.sock.send(end.unsent) :]
                if not end.unsent:
                    poll.modify(descriptor, select.EPOLLIN)
            if event & ~select.EPOLLOUT and not end.take(time.monotonic()):
                poll.unregister(descriptor)


def answer(value):
    print(json.dumps(value), flush=True)


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = socket.create_server((sys.argv[2], 0), backlog=1024)
    ends, poll = {}, select.epoll()
    poll.register(listener, select.EPOLLIN)
    threading.Thread(target=run, args=(listener, ends, poll), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    host, port, path = sys.stdin.readline().split()
    left = int(sys.argv[1])
    while left:
        # Those that are open answer while others are opened.
        batch = opened(int(port), min(BATCH, left), path, host)
        for sock in batch:
            ends[sock.fileno()] = _End(sock, True)
            poll.register(sock, select.EPOLLIN)
        left -= len(batch)
    answer("open")
    for line in sys.stdin:
        word, *numbers = line.split()
        every = list(ends.values())
        if word == "say":
            begin = time.monotonic()
            for end in every:
                end.sock.send(WORDS[end.is_client])
            answer(begin)
        elif word == "seen":
            found = {}
            for name, is_client in ("client", True), ("back end", False):
                these = [end for end in every if end.is_client == is_client]
                found[name] = ({"pings": sum(end.pings for end in these), "fewest": min(end.pings for end in these),
                                "pongs": sum(end.pongs for end in these)}, dict(when[is_client]))  # fmt: skip
                when[is_client].clear()
                for end in these:
                    end.pings = end.pongs = 0
            answer(found)
        else:
            count, size = map(int, numbers)
            head = b"\x82\xfe" + struct.pack("!HI", size, 0)
            frames = b"".join(head + struct.pack("!I", number) + bytes(size - 4) for number in range(count))
            backs = [end for end in every if not end.is_client]
            for end in every:
                if end.is_client:
                    end.unsent = memoryview(frames)
                    end.sock.setblocking(False)
                    poll.modify(end.sock, select.EPOLLIN | select.EPOLLOUT)
            while min(len(end.times) for end in backs) < count:
                time.sleep(0.05)
            answer([(end.times[0], end.times[-1]) for end in backs])
            for end in backs:
                end.times.clear()


if __name__ == "__main__":
    main()
