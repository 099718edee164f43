"""The documents agree with the code: every directive, message number and status line is in them."""

import re

import pytest

from harness import paths

ROOT = paths.ROOT


def read(name):
    return (ROOT / name).read_text()


DIRECTIVES = re.findall(r'name: c"(WSForward\w*)"', read("src/config.rs"))
NUMBERS = re.findall(r"Message = Message\((\d+)\);", read("src/message.rs"))


def test_there_is_something_to_check():
    assert len(DIRECTIVES) >= 12 and len(NUMBERS) >= 15


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_directive_is_documented(directive):
    reference = read("docs/mod_wsforward.md")
    section = reference.split(f"\n## {directive}\n")[1].split("\n## ")[0]
    for part in ("- Syntax: ", "- Default: ", "- Context: ", "```apache"):
        assert part in section
    assert f"| {directive} " in read("README.md")


@pytest.mark.parametrize("number", NUMBERS)
def test_message_is_documented(number):
    assert f"| WSF{int(number):04} |" in read("docs/messages.md")


def test_no_message_is_documented_that_does_not_exist():
    documented = re.findall(r"^\| WSF(\d{4}) \|", read("docs/messages.md"), re.M)
    assert sorted(map(int, documented)) == sorted(map(int, NUMBERS))
