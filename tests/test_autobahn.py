"""WSForwardStrict refuses nothing that is right: Autobahn's cases before the same server, without a proxy and through it.

By hand: `WSF_WSTEST` names the program `wstest` of autobahntestsuite 0.8.2, which needs Python 2 (or its container).
`WSF_AUTOBAHN_CASES` says which cases, such as `1.*,12.1.*`; all take some twenty minutes.
"""

import asyncio
import json
import os
import subprocess
import threading

import pytest
from websockets.asyncio.server import serve

from harness import relayed

WSTEST = os.environ.get("WSF_WSTEST")
CASES = os.environ.get("WSF_AUTOBAHN_CASES", "*").split(",")
#: What Autobahn says of a case that is passed.
PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")

pytestmark = pytest.mark.skipif(not WSTEST, reason="by hand: WSF_WSTEST names Autobahn's wstest")


class Echo:
    """A server of `websockets` that echoes messages, with permessage-deflate."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = self._run(self._serve())
        self.port = self.server.sockets[0].getsockname()[1]

    def _run(self, what):
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(30)

    async def _serve(self):
        return await serve(self._echo, "127.0.0.1", 0, max_size=None, ping_interval=None)

    @staticmethod
    async def _echo(talk):
        async for message in talk:
            await talk.send(message)

    async def _close(self):
        self.server.close()
        await self.server.wait_closed()

    def close(self):
        self._run(self._close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def echo():
    made = Echo()
    yield made
    made.close()


@pytest.mark.timeout(7200)
def test_autobahn_says_the_same_through_it(httpd, echo, tmp_path):
    server = httpd()
    servers = {"direct": echo.port}
    for name, relay in ("relay", "On"), ("thread", "Off"):
        servers[name] = server.vhost(f"""WSForward On
WSForwardRelay {relay}
WSForwardStrict On
WSForwardMaxMessage 100000000 100000000
ProxyPass "/" "http://127.0.0.1:{echo.port}/\"""")
    server.start()
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({
        "outdir": str(tmp_path), "cases": CASES, "exclude-cases": [], "exclude-agent-cases": {},
        "servers": [{"agent": name, "url": f"ws://127.0.0.1:{port}"} for name, port in servers.items()]}))  # fmt: skip
    subprocess.run([WSTEST, "-m", "fuzzingclient", "-s", spec], check=True, stdin=subprocess.DEVNULL, cwd=tmp_path)
    found = json.loads((tmp_path / "index.json").read_text())
    assert set(found) == set(servers)
    counts, other = {}, []
    for name in "relay", "thread":
        for case, direct in found["direct"].items():
            pair = tuple((one["behavior"], one["behaviorClose"]) for one in (direct, found[name][case]))
            counts[name, pair] = counts.get((name, pair), 0) + 1
            if pair[0] != pair[1]:
                other.append((name, case, *pair))
    print(f"{len(found['direct'])} cases:", *(f"{key}: {count}" for key, count in counts.items()), sep="\n")
    print(*other, sep="\n")
    worse = [one for one in other if one[2][0] in PASSED and one[3][0] not in PASSED]
    assert not worse, worse
    # All of them went where they were to go.
    figures = relayed.figures(server)
    assert figures["HandedOver"] == len(found["direct"])
