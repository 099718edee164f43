"""Programs of Debian's packages: installed, or unpacked by ci/test without installing them."""

import os
from pathlib import Path

from harness import paths

UNPACKED = Path(os.environ.get("WSF_UNPACKED", "/nonexistent"))


def program(file):
    """`file` below the machine's root, else below that of the unpacked packages."""
    for root in Path("/"), UNPACKED:
        if (root / file).exists():
            return root / file
    raise paths.Missing(f"/{file} (Debian has it; ci/test unpacks it)")


#: Where unpacked programs find their libraries and data.
ENVIRONMENT = {
    "LD_LIBRARY_PATH": ":".join(map(str, UNPACKED.glob("usr/lib/*-linux-gnu*"))),
    "XDG_DATA_DIRS": f"{UNPACKED}/usr/share:/usr/local/share:/usr/share",
}
