"""What a Dockerfile says."""

import re


def instructions(file):
    """(word, rest) of each instruction; lines that go on are joined."""
    text = re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.M)
    return [tuple(line.split(None, 1)) for line in re.sub(r"\\\n\s*", "", text).splitlines() if line]
