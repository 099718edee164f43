"""Django Channels in a browser: a form with Django's check of its origin, then a WebSocket of the same session."""

import sys

from selenium.webdriver.common.by import By

from harness import wait

from .application import HERE
from .conftest import reload_and_stay, websockets_of
from .page import listing

#: What any project has, and no database: the session is in its cookie.
SETTINGS = """
SECRET_KEY = "of these tests"
ROOT_URLCONF = "channels_app"
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
MIDDLEWARE = [f"django.{name}Middleware" for name in (
    "middleware.security.Security", "contrib.sessions.middleware.Session", "middleware.common.Common",
    "middleware.csrf.CsrfView")]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
"""


def test_channels(run, site, browser):
    def command(port, home):
        (home / "settings.py").write_text(listing("Django Channels", "python") + SETTINGS)
        # The scheme is by the page's settings alone, as under a server that does not look at X-Forwarded-Proto.
        return [sys.executable, "-m", "uvicorn", "channels_app:application", "--app-dir", HERE, f"--port={port}",
                "--no-proxy-headers"]  # fmt: skip
    app = run(command, DJANGO_SETTINGS_MODULE="settings", PYTHONPATH=".")
    server = site("Django Channels", p8000=app.port)
    browser.driver.get(f"{server.page_url}/")
    browser.driver.find_element(By.NAME, "name").send_keys("Ada:")
    browser.driver.find_element(By.TAG_NAME, "button").click()

    def shows(text):
        def page():
            return browser.driver.execute_script("return document.body ? document.body.innerText.trim() : ''")
        wait.until(lambda: page().endswith(text), lambda: f"{text!r} in {page()!r}; {app.text()}", 20)
    shows("Ada:")

    def say():
        browser.driver.execute_script("socket.send('x');")
        say.said += "x"
        shows(f" {say.said}")
    say.said = "Ada:"

    say()
    reload_and_stay(server, say)
    assert websockets_of(browser) == ([101], [])
