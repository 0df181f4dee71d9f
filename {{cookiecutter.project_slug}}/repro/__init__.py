"""The kit: what makes a training reproducible, and proves it.

It knows no model and no data set, and imports nothing of `experiment/`. Read in this order:
environment, seeding, determinism, sampling, parallel, checkpoint, provenance, record, verify.
"""

import signal
import sys

# `python -m repro...` takes a second to import what it needs. Ctrl-C then ends it without a
# traceback; later `run_command` says a line. sys.argv[0] is "-m" while a module is looked for.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
