"""Names of this machine and of its user, as the system and the environment tell them."""

import os
import platform
import re
from contextlib import suppress
from pathlib import Path

_ACCOUNT = re.compile(
    r"(?:/home|/Users|/export/home|/u|[A-Za-z]:[\\/]+Users)[\\/]+([^\\/\s\"'<>:]+)"
)
_ACCOUNTS = (
    *("WANDB_ENTITY", "WANDB_USERNAME", "MLFLOW_TRACKING_USERNAME", "COMET_WORKSPACE"),
    *("NEPTUNE_PROJECT", "SLURM_JOB_ACCOUNT", "KAGGLE_USERNAME"),
)


def account_of(path: str) -> str:
    """Return whose home folder a path lies in; "" if it lies in none."""
    match = _ACCOUNT.match(path)
    return match[1] if match else ""


def users() -> list[str]:
    """Return the names of this process's user."""
    names = [os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER")]
    return [*dict.fromkeys(filter(None, [*names, *_of_the_system(0)]))]


def real_names() -> list[str]:
    """Return what the system says the user is called."""
    return [name for gecos in _of_the_system(4) if (name := gecos.partition(",")[0].strip())]


def homes() -> list[str]:
    """Return the user's home folders."""
    known = [os.environ.get("HOME", ""), os.environ.get("USERPROFILE", ""), *_of_the_system(5)]
    return [*dict.fromkeys(str(Path(home)) for home in known if home)]


def accounts() -> list[str]:
    """Return the accounts of trackers and clusters that the environment names."""
    return [os.environ[name] for name in _ACCOUNTS if os.environ.get(name)]


def hosts() -> list[str]:
    """Return the names of this machine."""
    return [*dict.fromkeys(filter(None, [platform.node(), os.environ.get("HOSTNAME", "")]))]


def _of_the_system(field: int) -> list[str]:
    """Return a field of the user's entry; nothing where the system has no such entry."""
    with suppress(ImportError, KeyError):
        import pwd  # not on Windows

        return [str(pwd.getpwuid(os.getuid())[field])]
    return []
