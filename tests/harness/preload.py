"""What tests put before httpd's libraries (LD_PRELOAD), in C: tests/preload."""

import contextlib
import os
import subprocess

from . import paths


def build(name, directory, **values):
    """Compiles tests/preload/`name`.c into `directory`, with these as macros, and returns the library."""
    library = directory / ("-".join([name, *(value.strip('"') for value in values.values())]) + ".so")
    macros = [f"-D{macro}={value}" for macro, value in values.items()]
    source = paths.ROOT / "tests" / "preload" / f"{name}.c"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-Wall", *macros, "-o", library, source, "-ldl", "-lpthread"], check=True)
    library.chmod(0o755)
    return library


@contextlib.contextmanager
def loaded(library):
    """Into the processes that are started meanwhile."""
    before = os.environ.get("LD_PRELOAD")
    os.environ["LD_PRELOAD"] = str(library)
    try:
        yield
    finally:
        if before is None:
            del os.environ["LD_PRELOAD"]
        else:
            os.environ["LD_PRELOAD"] = before
