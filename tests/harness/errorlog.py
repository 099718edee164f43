"""httpd's error log: what a test said must be there is, and nothing else that matters."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from . import wait

LINE = re.compile(rb"^\[[^\]]+\] \[(?P<module>[\w.]*):(?P<level>[a-z0-9]+)\] \[pid (?P<pid>\d+)")
HARMLESS = re.compile(rb"^(notice|info|debug|trace\d)$")
#: What only says how this machine's packages were built: mod_ssl against a newer OpenSSL.
OF_THE_MACHINE = re.compile(rb"AH01882")
#: A child that died of a signal, AH00051 and AH00052, is logged at notice: never harmless.
CRASH = re.compile(rb"AH0005[12]|exit signal|panicked")
#: What the module says of an answer that it refuses, and mod_proxy's line that quotes it.
OWN = re.compile(rb"\[wsforward:error\] .* (?P<text>WSF\d{4}: .*); AH00898 repeats this, its HTTP/9\.9 is not from the back end$")
QUOTE = re.compile(rb"\[proxy:error\] .* AH00898: Corrupt status line .*: HTTP/9\.9 502 (?P<text>WSF\d{4}: .*) returned by ")


@dataclass
class ErrorLog:
    """The error log of one httpd, read in spans: one per test."""

    path: Path
    offset: int = 0
    expected: list = field(default_factory=list)
    possible: list = field(default_factory=list)

    def open_span(self):
        """Forgets what was logged and expected so far."""
        self.offset += len(self.span())
        self.expected, self.possible = [], []

    def expect(self, regex, certain=True):
        """Declares a line at warn or above, which may come more than once and must come if `certain`."""
        (self.expected if certain else self.possible).append(re.compile(regex.encode()))

    def span(self):
        """The bytes logged in this span, up to its last whole line: a reader sees some of a line
        that is being written."""
        if not self.path.exists():
            return b""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            whole, newline, _ = file.read().rpartition(b"\n")
            return whole + newline

    def lines(self):
        """The lines of this span."""
        return self.span().splitlines()

    def matching(self, regex):
        """The lines of this span that match."""
        pattern = re.compile(regex.encode())
        return [line for line in self.lines() if pattern.search(line)]

    def wait_for(self, regex, count=1):
        """Waits until `count` lines match and returns those that do."""
        def seen():
            found = self.matching(regex)
            return found if len(found) >= count else None
        return wait.until(seen, lambda: f"{count} lines with {regex} in\n{self.text()}")

    def text(self):
        """The span for a human."""
        return self.span().decode("utf-8", "backslashreplace")

    def verdict(self):
        """What is wrong with this span, an empty list if nothing is."""
        wrong = []
        for pattern in self.expected:
            try:
                self.wait_for(pattern.pattern.decode())
            except wait.TimedOut:
                wrong.append(f"expected but not logged: {pattern.pattern.decode()}")
        return wrong + self.unexpected()

    def unexpected(self):
        """Lines that are neither harmless nor expected, each with what is wrong with it.

        Who expects one of two lines that belong together, OWN and QUOTE, expects both.
        """
        wrong, own = [], []
        lines = self.lines()
        for line in lines:
            text = line.decode("utf-8", "backslashreplace")
            if CRASH.search(line):
                wrong.append(f"crash: {text}")
                continue
            parsed = LINE.match(line)
            if parsed and (HARMLESS.match(parsed["level"]) or OF_THE_MACHINE.search(line)):
                continue
            if found := OWN.search(line):
                own.append(found["text"])
            quoted = QUOTE.search(line)
            if quoted and quoted["text"] not in own:
                wrong.append(f"without a line of the module before it: {text}")
            if not any(self._is_expected(each) for each in [line, *_pair(line, lines)]):
                wrong.append(f"not expected: {text}")
        return wrong

    def _is_expected(self, line):
        return any(pattern.search(line) for pattern in self.expected + self.possible)


def _pair(line, lines):
    """The other line of a pair."""
    for one, other in ((OWN, QUOTE), (QUOTE, OWN)):
        if found := one.search(line):
            text = found["text"]
            return [each for each in lines if (match := other.search(each)) and match["text"] == text]
    return []
