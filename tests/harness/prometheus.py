"""Prometheus and promtool: Debian's, installed, or unpacked by ci/test without installing them."""

import json
import os
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from . import wait
from .ports import Port


def program(name):
    """One of the package's programs."""
    unpacked = Path(os.environ.get("WSF_UNPACKED", "/nonexistent"))
    found = [root / "usr/bin" / name for root in (Path("/"), unpacked) if (root / "usr/bin" / name).exists()]
    if not found:
        pytest.skip(f"no {name} (Debian: prometheus, installed or unpacked below WSF_UNPACKED)")
    return found[0]


def promtool(*arguments, **options):
    """What it says; it is to end well."""
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """One that asks `path` on this port once a second, until closed."""

    def __init__(self, folder, port, path, parameters, rules=()):
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [{
                "job_name": "wsforward", "metrics_path": path, "params": parameters,
                "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
            "rule_files": [str(file) for file in rules],
        }  # fmt: skip
        # JSON is YAML.
        file = folder / "prometheus.yml"
        file.write_text(json.dumps(config))
        self._log = folder / "prometheus.log"
        self._port = Port()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [program("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}",
                 f"--web.listen-address=127.0.0.1:{self._port.number}"], stdout=log, stderr=log)  # fmt: skip

    def _ask(self, path, **parameters):
        url = f"http://127.0.0.1:{self._port.number}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            # Not yet.
            return None

    def query(self, query):
        """What it finds now: `[(labels, value)]`."""
        found = self._ask("query", query=query)
        return [(one["metric"], float(one["value"][1])) for one in found["result"]] if found else []

    def wait(self, query, value):
        """Waits until the query has this single value."""
        wait.until(lambda: [found for _, found in self.query(query)] == [value],
                   lambda: f"{query} is {self.query(query)}\n{self.targets()}\n{self._log.read_text()}", 30)  # fmt: skip

    def targets(self):
        """What it asks, and how that went."""
        return (self._ask("targets") or {}).get("activeTargets", [])

    def types(self):
        """The type of each family, as it was told."""
        return {name: known[0]["type"] for name, known in (self._ask("metadata") or {}).items()}

    def close(self):
        """Ends it."""
        self._process.terminate()
        self._process.wait(30)
        self._port.release()
