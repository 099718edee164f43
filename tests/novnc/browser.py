"""Headless Chromium with noVNC in it."""

import base64
import json
import shutil
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from harness import paths, wait

#: A root without a display, and a machine without a way out: the browser is not to call home.
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--window-size=1280,900", "--host-resolver-rules=MAP www.example.com 127.0.0.1")  # fmt: skip
ARTEFACTS = Path(__file__).resolve().parents[1] / "artefacts"

CLOSE_TO = """
const canvas = document.querySelector("#noVNC_container canvas"), [r, g, b] = arguments;
if (!canvas || !canvas.width) return 0;
const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
let close = 0;
for (let at = 0; at < data.length; at += 4)
  if (Math.abs(data[at] - r) < 12 && Math.abs(data[at + 1] - g) < 12 && Math.abs(data[at + 2] - b) < 12) close += 1;
return close / (data.length / 4);
"""


class Browser:
    """One browser window, until closed."""

    def __init__(self):
        program, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if not (program and driver):
            raise paths.Missing("chromium and chromedriver (Debian: chromium, chromium-driver)")
        options = webdriver.ChromeOptions()
        options.binary_location = program
        options.accept_insecure_certs = True
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        for flag in FLAGS:
            options.add_argument(flag)
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        self.driver.set_page_load_timeout(30)
        self._events = []

    def log_in(self, port, user, password):
        """Fills in the application's form."""
        self.driver.get(f"https://localhost:{port}/login")
        self.driver.find_element(By.NAME, "user").send_keys(user)
        self.driver.find_element(By.NAME, "password").send_keys(password)
        self.driver.find_element(By.TAG_NAME, "button").click()

    def open_desktop(self, name):
        """Follows the link to a desktop."""
        wait.until(lambda: self.driver.find_elements(By.LINK_TEXT, name), f"a link {name}")[0].click()

    @property
    def state(self):
        """noVNC's own word for it: connected, connecting, disconnected, ..."""
        names = self.driver.find_element(By.TAG_NAME, "html").get_attribute("class").split()
        return [name.removeprefix("noVNC_") for name in names if name.startswith("noVNC_")]

    def wait_connected(self):
        """Waits until noVNC says that it is."""
        wait.until(lambda: "connected" in self.state, lambda: f"noVNC is {self.state}", 30)

    def share_of(self, colour):
        """The share of the canvas that has (about: noVNC may ask for JPEG) this colour."""
        return self.driver.execute_script(CLOSE_TO, *colour)

    def click_on_desktop(self):
        """Puts the X server's pointer in the middle of its screen."""
        self.driver.find_element(By.CSS_SELECTOR, "#noVNC_container canvas").click()

    def type(self, text):
        """Keys, for whoever has the focus."""
        webdriver.ActionChains(self.driver).send_keys(text).perform()

    def websocket_events(self):
        """What the network stack said of WebSockets so far: (event, its parameters)."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"].startswith("Network.webSocket"):
                self._events.append((message["method"].removeprefix("Network.webSocket"), message["params"]))
        return self._events

    def screenshot(self, name):
        """Keeps a picture below tests/artefacts."""
        ARTEFACTS.mkdir(exist_ok=True)
        file = ARTEFACTS / Path(name).with_suffix(".png")
        file.write_bytes(base64.b64decode(self.driver.get_screenshot_as_base64()))
        return file

    def close(self):
        """Ends the browser."""
        self.driver.quit()
