"""Cockpit in a browser: its own client keeps a shell of the machine."""

from . import debian
from .conftest import reload_and_stay, websockets_of
from .page import listing

#: Cockpit's client, in a page of the same origin, starts a shell.
START = """
const done = arguments[0], script = document.createElement("script");
script.src = "/cockpit/@localhost/base1/cockpit.js";
script.onerror = () => done("no cockpit.js");
script.onload = () => {
  window.said = "";
  window.shell = cockpit.spawn(["/bin/sh"], {err: "out"}).stream(text => { window.said += text; });
  window.shell.catch(error => { window.said += `the shell ended: ${error.problem}\\n`; done(window.said); });
  cockpit.transport.wait(() => done(null));
};
document.head.append(script);
"""
#: Lets the shell run a line, and returns the next line that it writes.
ASK = """
const [line, done] = arguments;
window.said = "";
window.shell.input(line + "\\n", true);
const look = () => window.said.endsWith("\\n") ? done(window.said) : setTimeout(look, 20);
look();
"""


def test_cockpit(run, site, browser):
    def command(port, home):
        (home / "cockpit").mkdir()
        (home / "cockpit" / "cockpit.conf").write_text(listing("Cockpit", "ini"))
        # Its session is that of the user who runs the tests: no PAM, no service.
        return ["env", f"XDG_CONFIG_DIRS={home}", debian.program("usr/lib/cockpit/cockpit-ws"), "-a", "127.0.0.1", "-p", port,
                f"--local-session={debian.program('usr/bin/cockpit-bridge')}"]  # fmt: skip
    app = run(command, **debian.ENVIRONMENT)
    server = site("Cockpit", p9090=app.port)
    browser.driver.set_script_timeout(30)
    # The packages with the pages are not there: this one says so, and its origin is all that counts.
    browser.driver.get(f"{server.page_url}/")
    assert browser.driver.execute_async_script(START) is None

    def count():
        # A variable of the shell: it is the same one as before.
        count.wanted += 1
        assert browser.driver.execute_async_script(ASK, "n=$((n + 1)); echo count $n") == f"count {count.wanted}\n"
    count.wanted = 0

    count()
    reload_and_stay(server, count)
    assert websockets_of(browser) == ([101], [])
