"""Fixtures of the noVNC scenario."""

import os

import pytest

from harness.ports import Port

from .desktop import Bridge, Container

NOVNC = os.environ.get("WSF_NOVNC", "/usr/share/novnc")


@pytest.fixture(scope="module")
def containers():
    """Two containers, so that a wrong one can be told from the right one."""
    made = [Container("desk-1"), Container("desk-2")]
    yield made
    for container in made:
        container.close()


@pytest.fixture(scope="module")
def running_bridge(containers):
    one, two = containers
    # Held and never listening: a container that is down.
    gone = Port()
    bridge = Bridge({("alice", "one"): one.port, ("alice", "two"): two.port, ("bob", "two"): two.port,
                     ("alice", "gone"): gone.number}, novnc=NOVNC)  # fmt: skip
    yield bridge
    bridge.close()
    gone.release()


@pytest.fixture
def bridge(running_bridge):
    """The Flask application before both containers; its log starts empty in each test, and ends when
    all that the test opened has closed."""
    running_bridge.open_span()
    yield running_bridge
    running_bridge.wait_closed()
