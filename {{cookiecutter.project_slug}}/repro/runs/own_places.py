"""Find an author's own files where an archive of the project has them.

A setting that names a folder has another value on each machine, and none in an archive. So
`archive --with-data` packs the folder by the name of its setting, below data/own_files/, and each
command finds it there if the setting has no value, or one that is not on this machine. Promises
that a path which is there is taken as it is, and that a project without such a folder is read as it
stands. The folder lies in data/, which containers mount.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repro.core.layout import own_place


def take_own_places(settings: DictConfig, names: Iterable[str], root: Path) -> None:
    """Give settings their folder in data/own_files/ where they name nothing that is here.

    `names`: of the settings that are paths. `settings` are not resolved yet, for a variable that is
    not set may end that.
    """
    known = {str(name) for name in settings}  # `in` does not find one whose value is missing (???)
    for name in known & {*names}:
        place = own_place(name)
        if (root / place).is_dir() and not _is_here(settings, name, root):
            settings[name] = place


def _is_here(settings: DictConfig, name: str, root: Path) -> bool:
    try:
        path = OmegaConf.select(settings, name)
    except OmegaConfBaseException:  # a variable that is not set
        return False
    return bool(path) and os.path.exists(root / os.path.expanduser(str(path)))


def replaced_by_own_places(arguments: Iterable[str], config: object) -> list[str]:
    """Return a line for each path of a command that is not here, so that another one is taken."""
    lines = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        place = own_place(name)
        if getattr(config, name, None) == place != value:
            lines.append(f"{argument} is not here: {place} is taken, as an archive has it")
    return lines
