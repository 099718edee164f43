"""What ci/sanitizers reports of processes, and what of it is a finding.

Of leaks those that are ours, or of a connection: httpd's modules leave some of their configuration behind,
without this module too. `python -m harness.reports FOLDER` shows the findings, and fails if there are any.
"""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

from . import paths

LEAK = re.compile(r"^(Direct|Indirect) leak of .*\n((?: +#.*\n)+)\n?", re.M)
#: What stands around leaks, and what is said of the threads that a forked process has not.
AROUND = re.compile(r"^=+$|^==\d+==ERROR: LeakSanitizer: detected memory leaks$|^SUMMARY: AddressSanitizer: .* leaked in .*$"
                    r"|^==\d+==Running thread \d+ was not suspended\. False leaks are possible\.$", re.M)  # fmt: skip
#: A frame. Names are found later, and for findings alone: a process that looks for them ends late.
FRAME = re.compile(r"\((/[^()\s]+)\+(0x[0-9a-f]+)\)(?: \(BuildId: \w+\))?")
#: What httpd runs for a connection: mod_ssl makes its TLS session, which we take over.
CONNECTION = ("ap_run_process_connection", "ap_run_pre_connection")
#: Leaks that are none, by a frame. With the reason.
KNOWN = (
    # mod_proxy's connections to a back end, which it makes with the first request, for as long as the child lives.
    r"ap_proxy_initialize_worker",
)
#: The same in a process that has forked: tunnels that came to it go on in a drain process, and it leaves them as they are.
KNOWN_OF_FORKED = (*KNOWN, r"request::meeting::Meeting>::arrive")
#: The look for leaks did not come to its end: it needs a process of its own, which the process could not fork, or
#: which was ended. That leaves the process as if it had been killed.
NO_LOOK = re.compile(r"^==\d+==(WARNING: TestPTrace\(\) failed to fork .*|LeakSanitizer has encountered a fatal error\."
                     r"|HINT: For debugging, try .*|HINT: LeakSanitizer does not work under .*)$", re.M)  # fmt: skip


@functools.cache
def _of_connections():
    """Where in httpd those functions are: first and last address."""
    listed = subprocess.run(["nm", "-D", "-S", _httpd()], capture_output=True, text=True, check=True).stdout
    words = (line.split() for line in listed.splitlines())
    found = [(int(start, 16), int(start, 16) + int(size, 16)) for start, size, _, name in
             (each for each in words if len(each) == 4) if name in CONNECTION]  # fmt: skip
    assert len(found) == len(CONNECTION), listed
    return found


def _httpd():
    return os.environ["WSF_WATCHED"]


def _is_of_connection(file, address):
    return file == _httpd() and any(start <= int(address, 16) < end for start, end in _of_connections())


def _is_ours(stack):
    # A module that was unloaded since has no name.
    return "unknown module" in stack or any(
        Path(file).name == "mod_wsforward.so" or _is_of_connection(file, address) for file, address in FRAME.findall(stack))


_names = {}


def _learn(frames):
    """Finds functions and lines of these frames, of each file in one go: the module has much to look through."""
    for file in {file for file, address in frames if (file, address) not in _names}:
        addresses = sorted({address for where, address in frames if where == file})
        # The suite's copy of the module may be gone.
        program = paths.module_under_test() if Path(file).name == "mod_wsforward.so" else file
        done = subprocess.run(["llvm-symbolizer", "--pretty-print", f"--obj={program}", *addresses],
                              capture_output=True, text=True)  # fmt: skip
        for address, lines in zip(addresses, done.stdout.split("\n\n"), strict=False):
            lines = [line.removeprefix(" (inlined by) ") for line in lines.strip().splitlines()]
            _names[file, address] = " < ".join(lines) or "?"


def named(text):
    """The same with names in the place of addresses."""
    _learn(FRAME.findall(text))
    return FRAME.sub(lambda frame: f"{_names.get(frame.groups(), '?')} ({Path(frame[1]).name})", text)


def findings(text, known=KNOWN):
    """Of one process: each leak, or what else there is. What hangs on a leak (Indirect) is not said beside it."""
    leaks = [leak[0] for leak in LEAK.finditer(text) if leak[1] == "Direct" and _is_ours(leak[2])]
    # All names at once.
    leaks = named("\0".join(leaks)).split("\0") if leaks else []
    leaks = [leak for leak in leaks if not re.search("|".join(known), leak)]
    rest = NO_LOOK.sub("", AROUND.sub("", LEAK.sub("", text))).strip()
    return leaks + ([named(rest)] if rest else [])


def _forked(folder):
    """The numbers of processes that forked others; see sanitizers/leaks_at_exit.c."""
    notes = folder / "noted"
    lines = notes.read_text().splitlines() if notes.exists() else []
    return {number for number, _, how in (line.split(" ", 2) for line in lines) if how == "forked"}


def of(folder, pattern="*"):
    """The findings of each process with one."""
    found = {}
    forked = _forked(folder)
    for file in sorted(folder.glob(f"{pattern}.[0-9]*")):
        known = KNOWN_OF_FORKED if file.suffix[1:] in forked else KNOWN
        if texts := findings(file.read_text(errors="replace"), known):
            found[file.name] = texts
    return found


def of_server(server):
    """The findings in processes of this server; none without a sanitizer."""
    folder = os.environ.get("WSF_REPORTS")
    return ["\n".join([name, *text]) for name, text in of(Path(folder), server.directory.name).items()] if folder else []


def main():
    found = of(Path(sys.argv[1]))
    for name, texts in found.items():
        print(f"== {name}\n" + "\n".join(texts))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
