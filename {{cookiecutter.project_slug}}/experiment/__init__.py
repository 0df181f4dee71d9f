"""The author's rooms: data, model, training. Change them; start with data.py or model.py."""

import repro  # noqa: F401  # first of all: from here on Ctrl-C shows no traceback
