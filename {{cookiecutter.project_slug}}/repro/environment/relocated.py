"""Let an environment that was made in another folder name the place where it will be.

`make setup` runs this file with the new environment's Python: bootstrap.py makes a new environment
inside of the old one, and then lets them change places. Programs in `bin`, and pyvenv.cfg, hold the
folder's path; each package's RECORD has their digests, which the doctor compares.
"""

import base64
import hashlib
import re
import sys
from pathlib import Path

_PROGRAM = re.compile(r"^((?:\.\./){3}(bin/[^,\n]+),sha256=)[^\r\n]*", re.MULTILINE)


def relocate(folder: Path) -> None:
    """Take the last part of the folder's path out of all that names it."""
    last_part = f"/{folder.name}".encode()
    for path in (folder / "pyvenv.cfg", *(folder / "bin").iterdir()):
        data = b"" if path.is_symlink() or not path.is_file() else path.read_bytes()
        if last_part in data:
            path.write_bytes(data.replace(last_part, b""))

    def renewed(found: re.Match[str]) -> str:
        data = (folder / found[2]).read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        return f"{found[1]}{digest},{len(data)}"

    for record in folder.glob("lib/python3*/site-packages/*.dist-info/RECORD"):
        listed = record.read_bytes().decode()  # read_text would change the ends of lines
        record.write_bytes(_PROGRAM.sub(renewed, listed).encode())


if __name__ == "__main__":
    relocate(Path(sys.argv[1]))
