"""Streamlit in a browser: a button whose count lives in the session of its WebSocket."""

import sys

from selenium.webdriver.common.by import By

from harness import wait

from .conftest import reload_and_stay, websockets_of

APPLICATION = """
import streamlit as st

st.session_state.count = st.session_state.get("count", 0)
if st.button("add"):
    st.session_state.count += 1
st.markdown(f"count is {st.session_state.count}")
"""


def test_streamlit(run, site, browser, scratch):
    page = scratch / "streamlit_app.py"
    page.write_text(APPLICATION)
    app = run(lambda port, _: [sys.executable, "-m", "streamlit", "run", page, "--server.address=127.0.0.1",
                               f"--server.port={port}", "--server.headless=true", "--server.fileWatcherType=none",
                               "--browser.gatherUsageStats=false"])  # fmt: skip
    server = site("Streamlit", p8501=app.port)
    browser.driver.get(f"{server.page_url}/")

    def shows(count):
        wait.until(lambda: f"count is {count}" in browser.driver.find_element(By.TAG_NAME, "body").text,
                   lambda: f"a count of {count}: {browser.driver.find_element(By.TAG_NAME, 'body').text!r}; {app.text()}", 60)

    def add():
        browser.driver.find_element(By.CSS_SELECTOR, '[data-testid="stButton"] button').click()
        add.count += 1
        shows(add.count)
    add.count = 0

    shows(0)
    add()
    reload_and_stay(server, add)
    assert websockets_of(browser) == ([101], [])
