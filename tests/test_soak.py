"""Tunnels through reloads, kills and jumps of the clock, as ci/soak has very many of them for hours."""

import importlib.util
import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from harness import paths, stresspeer

SOAK = paths.ROOT / "soak"
PAGE = paths.ROOT / "docs" / "reliability.md"
TUNNELS = 100


def part(name):
    """A file of it."""
    spec = importlib.util.spec_from_file_location(f"soak_{name}", SOAK / f"{name}.py")
    sys.modules[spec.name] = made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def ledger():
    return part("ledger")


def heard(ledger, *lines):
    """A book with these lines of the clients."""
    book = ledger.Ledger()
    for line in lines:
        book.hear(line.split())
    return book


def test_a_tunnel_that_ends_for_no_reason_is_lost(ledger):
    book = heard(ledger, "try 7.0 4001 443 3", "open 7.0", "try 8.0 4002 443 3", "open 8.0", "end 8.0 closing left", "end 7.0 open cut")
    assert [(one.tunnel.name, one.how) for one in book.lost] == [("7.0", "open: cut")]
    assert (book.opened, book.open, dict(book.ended)) == (2, 0, {"its client left": 1, "for no reason": 1})


def test_whom_a_kill_ends_is_known_one_by_one(ledger):
    """The one that another process has too may end, the third one must not, and the fourth must not go on."""
    book = heard(ledger, *(line for at in range(4) for line in (f"try {at}.0 {4000 + at} 443 1", f"open {at}.0")))
    assert book.process_dies("child", {(4000, 443), (4003, 443), (4002, 80)}, {(4001, 443)}) == (2, 1)
    for line in ("end 0.0 open Connection reset by peer (os error 104)", "end 1.0 open eof", "end 2.0 open eof"):
        book.hear(line.split())
    assert [one.tunnel.name for one in book.lost] == ["2.0"]
    assert [one.name for one in book.survivors()] == ["3.0"]
    assert book.ended["its child was killed"] == 2


def test_wrong_bytes_have_no_excuse(ledger):
    book = heard(ledger, "try 0.0 4000 80 1", "open 0.0")
    book.backend_dies(1)
    book.hear("end 0.0 open wrong: another message came back".split())
    assert [one.how for one in book.lost] == ["open: wrong: another message came back"]


def test_handshakes_fail_only_while_their_back_end_is_away(ledger):
    book = heard(ledger, "try 0.0 4000 80 1", "try 1.0 4001 80 2", "try 2.0 4002 80 1")
    book.backend_dies(1)
    for line in ("try 3.0 4003 80 1", "end 3.0 handshake answer HTTP/1.1 503 Service Unavailable",
                 "end 1.0 handshake answer HTTP/1.1 503 Service Unavailable", "open 2.0"):  # fmt: skip
        book.hear(line.split())
    assert [one.tunnel.name for one in book.lost] == ["1.0"]
    # Its handshake was under way: it may have come through before, or not.
    assert book.survivors() == []
    assert dict(book.refused) == {"its back end was away": 1, "for no reason": 1}


def test_a_slope_is_that_of_the_line_through_the_points():
    slope = part("measure").Slope.of([(at, 10 + at / 36 + (-1) ** at) for at in range(3600)])
    assert abs(slope.an_hour - 100) < 0.1 and 0 < slope.error < 0.2
    assert abs(slope.first - 10) < 0.1 and abs(slope.last - 110) < 0.1


def test_the_curves_need_nothing_else():
    """No script, style sheet, picture or font from elsewhere."""
    drawn = (paths.ROOT / "docs" / "soak.svg").read_text()
    assert "href" not in drawn and "<script" not in drawn and "url(" not in drawn and "@import" not in drawn
    assert drawn.count("http") == drawn.count('xmlns="http://www.w3.org/2000/svg"') == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_tunnel_ends_that_nobody_killed(module, tmp_path):
    """Two reloads, a child and a drain process that are killed, a clock that jumps: the small form of ci/soak."""
    stresspeer.program()
    page, picture = tmp_path / "reliability.md", tmp_path / "soak.svg"
    shutil.copy(PAGE, page)
    ran = subprocess.run([sys.executable, SOAK / "soak.py", "--small", "--tunnels", str(TUNNELS), "--seed", "1", "--module", module,
                          "--page", page, "--picture", picture], capture_output=True, text=True)  # fmt: skip
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = json.loads(ran.stdout.splitlines()[-1])
    assert (said["reloads"], said["children"], said["drain processes"], said["clock"]) == (2, 1, 1, 1)
    assert (said["register"], said["counts"], said["wrong"]) == (0, 0, 0)
    assert said["ended"]["its client left"] > 0 and "for no reason" not in said["ended"]
    assert sum(number for why, number in said["ended"].items() if why.endswith(" was killed")) > 0
    assert "2 graceful reloads" in page.read_text()
    drawn = xml.etree.ElementTree.parse(picture).getroot()
    assert len(drawn.findall(".//{*}polyline")) == 7
