"""What a failed test leaves for whoever looks into it: tests/artefacts/<test>/<server>/."""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "artefacts"


def keep(server, test):
    """Copies the configuration and the logs of `server`, an Httpd, for the test of that node id."""
    name = re.sub(r"[^\w.=-]+", "_", test.rpartition("/")[2]).strip("_")[:150]
    target = ROOT / name / f"{server.mpm}-{server.directory.name}"
    target.mkdir(parents=True, exist_ok=True)
    for file in ("httpd.conf", "error.log", "access.log"):
        source = server.directory / file
        if source.exists():
            shutil.copy(source, target / file)
