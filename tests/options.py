"""The template's options, and the versions in a lock."""

import json
import re

from conftest import ROOT

OPTIONS = json.loads((ROOT / "cookiecutter.json").read_text())


CHOICES = {k: v for k, v in OPTIONS.items() if isinstance(v, list) and not k.startswith("_")}


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
