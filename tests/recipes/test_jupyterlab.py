"""JupyterLab in a browser, with a kernel: its own client asks it, before and after a reload."""

import sys

from .conftest import reload_and_stay, websockets_of

START = """
const done = arguments[0];
window.jupyterapp.serviceManager.kernels.startNew({name: "python3"})
  .then(kernel => { window.kernel = kernel; done(kernel.connectionStatus); }, error => done(String(error)));
"""
#: Runs code in the kernel and returns what it prints.
EXECUTE = """
const [code, done] = arguments, future = window.kernel.requestExecute({code});
let text = "";
future.onIOPub = message => { if (message.header.msg_type === "stream") text += message.content.text; };
future.done.then(() => done(text), error => done(String(error)));
"""


def test_jupyterlab(run, site, browser):
    # As for `jupyter lab` of any machine, but for what a test does not want: a browser, a token, a look at the network.
    lab = run(lambda port, home: [
        sys.executable, "-m", "jupyterlab", f"--port={port}", "--ip=127.0.0.1", "--no-browser", "--allow-root",
        "--ServerApp.port_retries=0", "--ServerApp.allow_remote_access=True", "--IdentityProvider.token=",
        "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None", "--LabApp.extension_manager=readonly",
        f"--ServerApp.root_dir={home}"])  # fmt: skip
    server = site("JupyterLab", p8888=lab.port)
    browser.driver.set_script_timeout(60)
    browser.driver.get(f"{server.page_url}/lab")
    browser.driver.execute_async_script("""
        const done = arguments[0];
        const ready = () => window.jupyterapp ? window.jupyterapp.restored.then(() => done()) : setTimeout(ready, 50);
        ready();""")
    assert browser.driver.execute_async_script(START) in ("connected", "connecting")

    def calculates():
        browser.driver.execute_async_script(EXECUTE, "n = globals().get('n', 6) * 7; print(n)")
        assert browser.driver.execute_async_script(EXECUTE, "print(n)") == f"{calculates.wanted}\n"
        calculates.wanted *= 7
    calculates.wanted = 42

    calculates()
    reload_and_stay(server, calculates)
    statuses, ended = websockets_of(browser)
    assert statuses and set(statuses) == {101} and ended == []
