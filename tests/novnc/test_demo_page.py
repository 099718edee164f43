"""The page of ci/demo in a real browser: what the back end saw, the echo, and 500 tunnels."""

import re
import signal
import subprocess
import sys

import pytest
from selenium.webdriver.common.by import By

from harness import paths, wait

from .browser import Browser

TUNNELS = 500
#: Of 16. The page itself asks two of them at a time.
FEW = 4


@pytest.fixture
def demo():
    """The demo's own Apache; the URL of its page."""
    process = subprocess.Popen(
        [sys.executable, paths.ROOT / "demo/demo.py", "--module", paths.module_under_test(), "--tunnels", "20"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"Page:\s+(http://\S+)", line):
            break
    else:
        pytest.fail(f"ci/demo ended with {process.wait()}:\n{''.join(said)}")
    yield found[1]
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0, rest


@pytest.fixture
def page(demo):
    window = Browser()
    window.driver.set_window_size(1280, 1500)
    window.driver.get(demo)
    yield window
    window.close()


def text(page, selector):
    return page.driver.find_element(By.CSS_SELECTOR, selector).text


def numbers(page, name):
    """The figures of a list, by their names."""
    words = page.driver.execute_script(
        "return [...document.querySelectorAll(`#${arguments[0]} div`)].map((pair) => [...pair.children].map((e) => e.textContent))",
        name)  # fmt: skip
    return dict(words)


def fates(page):
    """The table of headers: by name, the values of each column."""
    rows = page.driver.execute_script(
        "return [...document.querySelectorAll('#seen tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))")  # fmt: skip
    return {name: cells for name, *cells in rows}


def busy(page):
    """Busy workers, and all of them."""
    return tuple(map(int, numbers(page, "load-numbers")["Busy workers"].split(" of ")))


@pytest.mark.timeout(180)
def test_the_page_of_the_demo(page):
    try:
        look_around(page)
    finally:
        page.screenshot("demo")
    # Nothing went wrong that only a console says.
    assert [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def look_around(page):
    # Without the module Upgrade is dropped, with it it is kept; a field of the client's arrives either way.
    table = wait.until(lambda: fates(page), "the table of headers")
    assert table["Upgrade"] == ["websocket", "–", "dropped", "websocket", "kept"]
    assert table["X-Request-Id"] == ["demo-1", "demo-1", "kept", "demo-1", "kept"]
    assert table["TE"][2] == table["TE"][4] == "dropped"
    page.driver.find_element(By.CSS_SELECTOR, "[data-request=browser]").click()
    wait.until(lambda: fates(page).get("Upgrade") == ["websocket", "websocket", "kept"], lambda: fates(page))
    page.driver.find_element(By.CSS_SELECTOR, "[data-request=hand]").click()

    wait.until(lambda: re.match(r"[\d.]+ ms", numbers(page, "rtt-numbers")["Median"]), "round trips")
    assert numbers(page, "rtt-numbers")["Tunnel"] == "open"
    page.driver.find_element(By.ID, "words").send_keys("hello there\n")
    wait.until(lambda: text(page, "#echo") == "The back end says: hello there", lambda: text(page, "#echo"))

    wait.until(lambda: "Busy workers" in numbers(page, "load-numbers"), "figures of Apache")
    page.driver.find_element(By.ID, "open").click()
    opened = lambda: numbers(page, "load-numbers")  # noqa: E731
    wait.until(lambda: int(opened().get("Open tunnels", 0)) > TUNNELS, opened, 60)
    wait.until(lambda: busy(page)[0] <= FEW, lambda: busy(page))
    assert busy(page)[1] == 16
    # The page's own echo is one more, and Apache counts as the back end does.
    status = lambda: numbers(page, "status")  # noqa: E731
    wait.until(lambda: status()["WSForwardTunnels"] == opened()["Open tunnels"] == str(TUNNELS + 1), status)
    # Some seconds of it, for the picture.
    points = "return document.querySelector('#load path.first').getAttribute('d').split('L').length"
    wait.until(lambda: page.driver.execute_script(points) >= 12, "a curve", 30)
    assert numbers(page, "rtt-numbers")["Tunnel"] == "open"
    page.screenshot("demo-500-tunnels")
    page.driver.find_element(By.ID, "close").click()
    wait.until(lambda: opened()["Open tunnels"] == "1", opened, 60)
