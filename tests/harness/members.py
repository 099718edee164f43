"""Back ends for very many tunnels: one thread serves them all, and counts what each has open."""

import contextlib
import resource
import selectors
import socket
import threading

from . import http, wait, websocket


class Members:
    """So many back ends, which switch protocols for every upgrade request and answer others with a page."""

    def __init__(self, count):
        # Both ends of each tunnel are this process's.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._selector = selectors.DefaultSelector()
        self._listeners = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(count)]
        self.ports = [listener.getsockname()[1] for listener in self._listeners]
        #: Tunnels open at each, and pages that each has served.
        self.open, self.pages = [0] * count, [0] * count
        for number, listener in enumerate(self._listeners):
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, (number, None))
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def url(self, number):
        return f"http://127.0.0.1:{self.ports[number]}"

    def wait_open(self, count):
        """Waits until so many tunnels are open at all of them; how many each has."""
        wait.until(lambda: sum(self.open) == count, lambda: f"{count} are open at the members: {self.open}")
        return list(self.open)

    def close(self):
        self._wake.send(b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._wake.close()

    def _run(self):
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                number, head = key.data
                if head is None:
                    self._accept(number, key.fileobj)
                else:
                    self._read(number, key.fileobj, head)

    def _accept(self, number, listener):
        with contextlib.suppress(BlockingIOError):
            while True:
                sock = listener.accept()[0]
                self._selector.register(sock, selectors.EVENT_READ, (number, bytearray()))

    def _read(self, number, sock, head):
        try:
            data = sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self._selector.unregister(sock)
            sock.close()
            self.open[number] -= head == b"tunnel"
        elif head != b"tunnel":
            head += data
            if head.endswith(b"\r\n\r\n"):
                self._answer(number, sock, head)

    def _answer(self, number, sock, head):
        request = http.Request(bytes(head))
        if "websocket" not in (request.get("Upgrade") or "").lower():
            self.pages[number] += 1
            head.clear()
            sock.send(http.page(str(number).encode()))
            return
        head[:] = b"tunnel"
        self.open[number] += 1
        key = websocket.accept(request.get("Sec-WebSocket-Key").encode()).decode()
        sock.send(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  f"Sec-WebSocket-Accept: {key}\r\nX-Member: {number}\r\n\r\n".encode())  # fmt: skip
