"""The status page in a real browser: that of a server that is made up, with no tunnel, a few, and very many."""

import os
import subprocess
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from harness import paths

from .browser import Browser

WIDTHS = (360, 800, 1400)
HEIGHT = 900
TUNNELS = (0, 3, 20_000)
#: What is cut off or covers something else.
TOO_WIDE = """
const wide = [...document.querySelectorAll("body *")].filter(one => {
  const box = one.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 1 || one.scrollWidth > one.clientWidth + 1 && one.clientWidth
    && getComputedStyle(one).display !== "inline" && one.tagName !== "INPUT");
});
return wide.map(one => one.tagName + " " + one.className + ": " + one.textContent.slice(0, 60));
"""


@pytest.fixture(scope="module")
def show():
    """Prints the page."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", paths.ROOT / "target"))
    subprocess.run(["cargo", "build", "--package", "report", "--example", "show", "--locked", "--quiet"],
                   cwd=paths.ROOT, check=True)  # fmt: skip
    return lambda *arguments: subprocess.check_output([target / "debug/examples/show", "page", *map(str, arguments)])


@pytest.fixture(scope="module")
def window():
    browser = Browser()
    yield browser
    browser.close()


def load(window, file, page, width):
    file.write_bytes(page)
    window.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    window.driver.get(file.as_uri())
    # All that is folded away, too.
    window.driver.execute_script('for (const one of document.querySelectorAll("details")) one.open = true')


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("tunnels", TUNNELS)
def test_page_fits(window, show, tmp_path, tunnels, width):
    load(window, tmp_path / "page.html", show(tunnels), width)
    assert window.driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert window.driver.execute_script(TOO_WIDE) == []
    rows = window.driver.find_elements(By.CSS_SELECTOR, "#list tbody tr")
    assert len(rows) == min(tunnels, 100)
    window.screenshot(f"status-page-{tunnels}-{width}")


def test_page_needs_nothing_else(window, show, tmp_path):
    """No script ran, nothing was fetched, and what clients said is text."""
    load(window, tmp_path / "page.html", show(20_000, "user=%3Cb%3Emallory%3C/b%3E&page=2"), WIDTHS[0])
    fetched = window.driver.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert fetched == []
    assert [line for line in window.driver.get_log("browser") if line["level"] == "SEVERE"] == []
    users = window.driver.find_elements(By.CSS_SELECTOR, "#list td[data-name=Client] b")
    assert {user.text for user in users} == {"<b>mallory</b>"}
    form = window.driver.find_element(By.CSS_SELECTOR, "form.fields input[name=user]")
    assert form.get_attribute("value") == "<b>mallory</b>"
    links = [link.get_attribute("href") for link in window.driver.find_elements(By.CSS_SELECTOR, "nav a")]
    assert any(link.endswith("?user=%3Cb%3Emallory%3C%2Fb%3E&page=3#list") for link in links)
