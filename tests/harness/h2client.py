"""An HTTP/2 client over TLS that speaks extended CONNECT (RFC 8441), on top of hyper-h2."""

import socket

import h2.config
import h2.connection
import h2.events
import h2.settings

from .wait import PATIENCE

RST_STREAM = 3
CANCEL = 8


class Http2Client:
    """One connection, ALPN h2, with as many streams as a test wants."""

    def __init__(self, port, context):
        sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.sock = context.wrap_socket(sock, server_hostname="localhost")
        assert self.sock.selected_alpn_protocol() == "h2"
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.streams = {}
        #: (stream, error code) of every RST_STREAM. hyper-h2 does not tell of one for a stream that both
        #: sides have ended.
        self.resets = []
        self._frames = b""
        self._send()
        while not self.connect_enabled and not self._settings_seen:
            self._pump()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    _settings_seen = False

    @property
    def connect_enabled(self):
        """Whether the server sent SETTINGS_ENABLE_CONNECT_PROTOCOL = 1 (RFC 8441 3)."""
        return self.h2.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL, 0) == 1

    def request(self, path, fields=(), *, method="GET", protocol=None, end=True):
        """Opens a stream: an extended CONNECT if `protocol` is given. Returns the Stream."""
        number = self.h2.get_next_available_stream_id()
        head = [(":method", "CONNECT" if protocol else method), (":scheme", "https"),
                (":authority", "site.test"), (":path", path)]  # fmt: skip
        if protocol:
            head.append((":protocol", protocol))
        stream = self.streams[number] = Stream(self, number)
        self.h2.send_headers(number, [*head, *fields], end_stream=end and not protocol)
        self._send()
        return stream

    def websocket(self, path="/", fields=()):
        """An extended CONNECT for a WebSocket."""
        return self.request(path, [("sec-websocket-version", "13"), *fields], protocol="websocket")

    def _send(self):
        self.sock.sendall(self.h2.data_to_send())

    def _pump(self):
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("the server ended the connection")
        self._note_resets(data)
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self._settings_seen = True
            stream = self.streams.get(getattr(event, "stream_id", None))
            if not stream:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                stream.headers = list(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                stream.data += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                stream.ended = True
            elif isinstance(event, h2.events.StreamReset):
                stream.ended, stream.reset = True, event.error_code
        self._send()

    def _note_resets(self, data):
        """Goes through the heads of the frames (RFC 9113 4.1)."""
        self._frames += data
        while len(self._frames) >= 9:
            end = 9 + int.from_bytes(self._frames[:3], "big")
            if len(self._frames) < end:
                return
            frame, self._frames = self._frames[:end], self._frames[end:]
            if frame[3] == RST_STREAM:
                self.resets.append((int.from_bytes(frame[5:9], "big"), int.from_bytes(frame[9:13], "big")))

    def wait_reset(self):
        """Reads until the next RST_STREAM, which it returns."""
        known = len(self.resets)
        while len(self.resets) == known:
            self._pump()
        return self.resets[known]


class Stream:
    """One stream of an Http2Client."""

    def __init__(self, client, number):
        self.client, self.number = client, number
        self.headers, self.data, self.ended, self.reset = None, b"", False, None

    @property
    def status(self):
        """The status, read if need be."""
        while self.headers is None and not self.ended:
            self.client._pump()
        assert self.headers is not None, f"the stream was reset: {self.reset}"
        return int(dict(self.headers)[":status"])

    def get(self, name):
        """A response header."""
        return dict(self.headers).get(name)

    def send(self, data):
        """Sends bytes, waiting for window where there is none."""
        while data:
            room = min(self.client.h2.local_flow_control_window(self.number), 16384)
            if not room:
                self.client._pump()
                continue
            self.client.h2.send_data(self.number, data[:room])
            self.client._send()
            data = data[room:]

    def end(self):
        """Ends the sending of this stream."""
        self.client.h2.end_stream(self.number)
        self.client._send()

    def cancel(self):
        """Ends the stream in both directions: RST_STREAM, CANCEL (RFC 9113 7)."""
        self.client.h2.reset_stream(self.number, CANCEL)
        self.client._send()

    def read_exactly(self, size):
        """Exactly so many bytes."""
        while len(self.data) < size:
            if self.ended:
                raise EOFError(f"the stream ended after {self.data!r}, reset: {self.reset}")
            self.client._pump()
        data, self.data = self.data[:size], self.data[size:]
        return data

    def read_to_end(self):
        """All bytes until the server ends the stream."""
        while not self.ended:
            self.client._pump()
        data, self.data = self.data, b""
        return data
