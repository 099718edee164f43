"""Where httpd, its modules and the module under test are."""

import functools
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Missing(RuntimeError):
    """Something that the tests need is not installed or not built."""


@functools.cache
def apxs(name):
    """One value of `apxs -q`; `APXS` in the environment names another apxs, as for the build."""
    program = os.environ.get("APXS", "apxs")
    try:
        done = subprocess.run([program, "-q", name], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Missing(f"{program} -q {name}: {error} (Debian: apt install apache2-dev)") from error
    return done.stdout.strip()


@functools.cache
def httpd():
    """The httpd program that belongs to apxs, or what `WSF_HTTPD` names in its place (ci/sanitizers)."""
    if named := os.environ.get("WSF_HTTPD"):
        return Path(named)
    for name in (apxs("PROGNAME"), "apache2", "httpd"):
        program = Path(apxs("SBINDIR")) / name
        if program.exists():
            return program
    raise Missing(f"no httpd in {apxs('SBINDIR')}")


@functools.cache
def httpd_version():
    """Its version, such as (2, 4, 62)."""
    said = subprocess.run([httpd(), "-v"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.search(r"Apache/(\d+)\.(\d+)\.(\d+)", said).groups()))


@functools.cache
def static_modules():
    """Names of the modules that are compiled into httpd, such as `unixd`."""
    listed = subprocess.run([httpd(), "-l"], capture_output=True, text=True, check=True).stdout
    names = (line.strip().removesuffix(".c") for line in listed.splitlines()[1:])
    return frozenset(name.removeprefix("mod_") for name in names)


def module_file(name):
    """The file of a shared httpd module, None if it is not there."""
    path = Path(apxs("LIBEXECDIR")) / f"mod_{name}.so"
    return path if path.exists() else None


def module_under_test():
    """The module that the tests are about: `WSF_MODULE`, else the release build."""
    named = os.environ.get("WSF_MODULE")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = Path(named) if named else target / "release" / "libmod_wsforward.so"
    if not path.exists():
        raise Missing(f"{path} is missing: build it with `cargo build --release`")
    return path
