"""The wall clock that httpd's processes see: the machine's own, wrong by what is set here."""

import contextlib
import os
import struct
import subprocess

from . import paths

SOURCE = paths.ROOT / "soak" / "clock.c"


class WallClock:
    """Builds what is put before httpd's C library, and tells it how wrong it is."""

    def __init__(self, directory):
        self.library, self.file = directory / "clock.so", directory / "clock"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", self.library, SOURCE, "-ldl"], check=True)
        self.library.chmod(0o755)
        self.set(0)
        self.file.chmod(0o644)

    def set(self, hours):
        """It is wrong by so many hours from now on."""
        file = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)
        # One store of eight bytes, as far as whoever maps them can see.
        os.pwrite(file, struct.pack("=q", round(hours * 3600e9)), 0)
        os.close(file)
        self.hours = hours

    @contextlib.contextmanager
    def seen(self):
        """What is started meanwhile goes by this clock."""
        mine = {"LD_PRELOAD": str(self.library), "WSF_SOAK_CLOCK": str(self.file)}
        before = {name: os.environ.get(name) for name in mine}
        os.environ.update(mine)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
