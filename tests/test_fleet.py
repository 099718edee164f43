"""A rolling upgrade of a fleet behind HAProxy, as ci/fleet does it with very many tunnels."""

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from harness import paths
from harness.network import NAMESPACES, need_namespaces

FLEET = paths.ROOT / "fleet"
TUNNELS = 60


def another_build(module, directory):
    """The same module in another file: some bytes longer, as a later version is."""
    other = Path(shutil.copy(module, directory / "other.so"))
    with other.open("ab") as file:
        file.write(b"other")
    return other


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_fleet_is_upgraded_without_a_herd(module, tmp_path):
    """Node by node: no tunnel ends without a Close frame, no handshake fails, all are back and evened out."""
    need_namespaces()
    picture = tmp_path / "fleet.svg"
    ran = subprocess.run([*NAMESPACES, sys.executable, FLEET / "fleet.py", "--small", "--tunnels", str(TUNNELS), "--module", module,
                          "--before", another_build(module, tmp_path), "--picture", picture], capture_output=True, text=True)  # fmt: skip
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = json.loads(ran.stdout.splitlines()[-1])
    assert (said["cut"], said["failed handshakes"]) == (0, 0)
    assert sum(said["balanced"]) == TUNNELS
    # 20, 30 and 30 tunnels of nodes, and 20 to even them out.
    assert said["closes"] >= 100 and set(said["codes"]) == {"1012"}
    drawn = xml.etree.ElementTree.parse(picture).getroot()
    assert len(drawn.findall(".//{*}polyline")) == 3


def test_the_curves_need_nothing_else():
    """No script, style sheet, picture or font from elsewhere."""
    drawn = (paths.ROOT / "docs" / "fleet.svg").read_text()
    assert "href" not in drawn and "<script" not in drawn and "url(" not in drawn and "@import" not in drawn
    assert drawn.count("http") == drawn.count('xmlns="http://www.w3.org/2000/svg"') == 1
