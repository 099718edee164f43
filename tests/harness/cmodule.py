"""Small httpd modules of the tests, in C: what no module of httpd does and some other may."""

import subprocess

from . import paths


def build(name, directory):
    """Compiles tests/modules/`name`.c into `directory` and returns its LoadModule line."""
    file = directory / f"{name}.so"
    if not file.exists():
        flags = f"{paths.apxs('EXTRA_CPPFLAGS')} {paths.apxs('EXTRA_INCLUDES')} -I{paths.apxs('INCLUDEDIR')}".split()
        source = paths.ROOT / "tests" / "modules" / f"{name}.c"
        subprocess.run(["cc", "-shared", "-fPIC", *flags, "-o", file, source], check=True)
        file.chmod(0o755)
    return f"LoadModule {name}_module {file}"
