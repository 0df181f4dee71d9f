"""Your own code: data, model, training. Change it; start with data.py or model.py."""

import repro  # noqa: F401, I001  # first of all: from here on Ctrl-C shows no traceback

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the project's folder
