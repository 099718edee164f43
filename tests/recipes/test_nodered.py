"""Node-RED's editor in a browser: it is told over its WebSocket what a flow does."""

import json
import os
from pathlib import Path

from harness import paths, wait

from .conftest import program, reload_and_stay, websockets_of

#: Where ci/test puts what tests/recipes/node-red pins.
NODE_RED = Path(os.environ.get("WSF_NODE_RED", "/nonexistent")) / "red.js"
FLOWS = [
    {"id": "flow", "type": "tab", "label": "Flow"},
    {"id": "button", "type": "inject", "z": "flow", "payload": "", "payloadType": "date", "props": [], "x": 100, "y": 100,
     "wires": [["count"]]},
    {"id": "count", "type": "function", "z": "flow", "outputs": 1, "x": 250, "y": 100, "wires": [["debug"]],
     "func": "const n = (context.get('n') || 0) + 1; context.set('n', n); msg.payload = `count ${n}`; return msg;"},
    {"id": "debug", "type": "debug", "z": "flow", "active": True, "tosidebar": True, "complete": "payload",
     "targetType": "msg", "x": 400, "y": 100, "wires": []},
]  # fmt: skip


def test_nodered(run, site, browser):
    if not NODE_RED.exists():
        raise paths.Missing(f"{NODE_RED} (ci/test fetches it)")

    def command(port, home):
        (home / "flows.json").write_text(json.dumps(FLOWS))
        (home / "settings.js").write_text(f"module.exports = {{uiHost: '127.0.0.1', uiPort: {port}, flowFile: 'flows.json',"
                                          f" telemetry: {{enabled: false}}}}")
        return [program("node"), NODE_RED, "--userDir", home]
    app = run(command)
    server = site("Node-RED", p1880=app.port)
    browser.driver.set_script_timeout(30)
    browser.driver.get(f"{server.page_url}/")
    wait.until(lambda: browser.driver.execute_script("return window.RED && RED.nodes && !!RED.nodes.node('debug')"),
               lambda: f"the editor has its flow; {app.text()}", 60)
    browser.driver.execute_script("RED.comms.subscribe('debug', (_topic, message) => { window.told = message.msg; })")

    def press():
        browser.driver.execute_async_script("fetch('/inject/button', {method: 'POST'}).then(arguments[0])")
        press.count += 1
        wait.until(lambda: browser.driver.execute_script("return window.told") == f"count {press.count}",
                   lambda: f"count {press.count}: {browser.driver.execute_script('return window.told')}; {app.text()}", 20)
    press.count = 0

    press()
    reload_and_stay(server, press)
    statuses, ended = websockets_of(browser)
    assert statuses and set(statuses) == {101} and ended == []
