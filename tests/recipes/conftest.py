"""Fixtures of the recipes."""

import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from harness import paths, relayed, wait
from novnc.browser import Browser

from .application import Application
from .page import recipe


@pytest.fixture(scope="module")
def run():
    """Starts applications that end with the tests of the file: `run(command, **environment)`."""
    with ExitStack() as stack:
        yield lambda command, **environment: stack.enter_context(closing(Application(command, **environment)))


@pytest.fixture
def site(httpd):
    """Starts httpd with a recipe of the page before these ports: `site("JupyterLab", p8888=port)`."""
    def start(name, **ports):
        server = httpd()
        port = server.vhost(recipe(name, **ports), tls=True)
        # A browser asks for a public name, as it does in the field: applications make exceptions for localhost.
        server.page_url, server.local = f"https://www.example.com:{port}", f"localhost:{port}"
        return server.start()
    return start


@pytest.fixture
def browser(request):
    """A real browser, with a picture of its last page in tests/artefacts."""
    with closing(Browser()) as window:
        yield window
        window.screenshot(f"recipe-{request.node.name.removeprefix('test_')}")


def reload_and_stay(server, work):
    """`work` goes on over tunnels that are relayed, and over the same ones after a graceful reload."""
    wait.until(lambda: relayed.figures(server)["Tunnels"], "a relayed tunnel")
    before = wait.steady(lambda: relayed.figures(server)["Tunnels"])
    server.reload()
    work()
    after = relayed.figures(server)
    assert after["Tunnels"] >= before and after["Ended"] == 0, (before, after)
    stayed = {name: value for name, value in after.items() if name.startswith("Fallback-") and value}
    assert stayed == {}, stayed


def websockets_of(browser):
    """The statuses of the handshakes so far, and the events of WebSockets that ended."""
    events = browser.websocket_events()
    statuses = [params["response"]["status"] for event, params in events if event == "HandshakeResponseReceived"]
    return statuses, [event for event, _ in events if event in ("Closed", "FrameError")]


def program(name):
    """A program that the tests' .venv brings along."""
    file = Path(sys.executable).parent / name
    if not file.exists():
        raise paths.Missing(f"{file} (tests/recipes/requirements.txt)")
    return file


def pytest_collection_modifyitems(items):
    """Real applications start slowly where other tests run beside them."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))
