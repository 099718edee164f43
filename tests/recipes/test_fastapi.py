"""FastAPI under uvicorn, in a browser: scheme and name are those that the browser asked for."""

import sys

from selenium.webdriver.common.by import By

from harness import wait

from .application import HERE
from .conftest import reload_and_stay, websockets_of


def test_fastapi(run, site, browser):
    app = run(lambda port, _: [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--app-dir", HERE, f"--port={port}"])
    server = site("FastAPI and other applications under uvicorn", p8000=app.port)
    browser.driver.get(f"{server.page_url}/")

    def shows(text):
        said = browser.driver.find_element(By.ID, "said")
        wait.until(lambda: said.text.endswith(text), lambda: f"{text!r} in {said.text!r}; {app.text()}", 20)
    # From a page of https:// the browser opens wss:// only; the address is that of the application's own making.
    shows(f"{server.page_url.replace('https:', 'wss:')}/talk")

    def say():
        browser.driver.execute_script("socket.send('x');")
        say.said += "x"
        shows(f" {say.said}")
    say.said = ""

    say()
    reload_and_stay(server, say)
    assert websockets_of(browser) == ([101], [])
