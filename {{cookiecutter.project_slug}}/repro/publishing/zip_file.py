"""Write an archive's files as one zip file that every tool unpacks to the same tree.

Promises the same bytes for the same files: names sorted, one time for all, fixed permissions,
nothing compressed (compressors differ). Every path lies below one folder and nothing is a link.
"""

import io
import os
import shutil
import time
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from repro.core.errors import UserError, refuse
from repro.core.file_names import fault_of_name, faults_of_names, shown
from repro.core.files import replacing
from repro.publishing.contents import Files

_1980 = 315532800  # zip knows no earlier time


def write_zip(path: Path, top: str, files: Files, executable: set[str], moment: int) -> None:
    """Write the files into a zip file below the folder `top`, as a whole or not at all."""
    if fault := fault_of_name(top):
        raise UserError(f"{shown(top)}, the archive's folder: {fault}: rename it in pyproject.toml")
    refuse(faults_of_names(files, top))
    date = time.gmtime(max(moment, _1980))[:6]
    with replacing(path) as temporary, ZipFile(temporary, "w") as packed:
        for name in sorted(files):
            content = files[name]
            source = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
            info = ZipInfo(f"{top}/{name}", date)
            info.create_system = 3  # Unix, whatever this one is
            info.external_attr = (0o100755 if name in executable else 0o100644) << 16
            with source:
                info.file_size = source.seek(0, os.SEEK_END)  # above 2 GiB the format differs
                source.seek(0)
                with packed.open(info, "w") as target:
                    shutil.copyfileobj(source, target)
