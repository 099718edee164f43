"""MQTT over WebSocket: a subscriber of Mosquitto gets what a publisher sends, over one connection each."""

import queue

import pytest
from paho.mqtt.client import CallbackAPIVersion, Client

from . import debian
from .conftest import reload_and_stay


def command(port, home):
    # The unix socket: a 2.0 before 2.0.12 does not start with WebSockets alone.
    (home / "mosquitto.conf").write_text(f"user root\nallow_anonymous true\nlistener 0 {home}/socket\n"
                                         f"listener {port} 127.0.0.1\nprotocol websockets\n")
    return [debian.program("usr/sbin/mosquitto"), "-c", home / "mosquitto.conf"]


@pytest.fixture
def connected(certificate):
    """Makes clients of MQTT over WebSocket and TLS that do not connect again."""
    made = []

    def make(port):
        client = Client(CallbackAPIVersion.VERSION2, transport="websockets", reconnect_on_failure=False)
        client.tls_set(str(certificate.cert))
        client.ws_set_options(path="/mqtt")
        client.messages = queue.Queue()
        client.on_connect = lambda *_: client.messages.put("connected")
        client.on_subscribe = lambda *_: client.messages.put("subscribed")
        client.on_message = lambda _client, _data, message: client.messages.put(message.payload)
        client.connect("localhost", port)
        client.loop_start()
        made.append(client)
        assert client.messages.get(timeout=20) == "connected"
        return client
    yield make
    for client in made:
        client.disconnect()
        client.loop_stop()


def test_mosquitto(run, site, connected):
    app = run(command, **debian.ENVIRONMENT)
    server = site("Mosquitto, MQTT over WebSocket", p9001=app.port)
    port = int(server.local.partition(":")[2])
    subscriber, publisher = connected(port), connected(port)
    subscriber.subscribe("recipes/#", qos=1)
    assert subscriber.messages.get(timeout=20) == "subscribed"

    def publish(payload):
        publisher.publish("recipes/test", payload, qos=1)
        assert subscriber.messages.get(timeout=20) == payload
    publish(b"before")
    reload_and_stay(server, lambda: publish(b"after"))
    assert subscriber.is_connected() and publisher.is_connected()
