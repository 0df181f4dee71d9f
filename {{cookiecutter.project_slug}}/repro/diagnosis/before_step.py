"""What an author's code does before the first step: data sets, networks and `initialize`.

Promises to name there what lies outside the promise of the portable profile, and nothing else: all
of this runs on the CPU. Only such operations are kept, for data may be made by millions of others.
"""

from typing import Any

from repro.diagnosis.catalogue import may_not_be_portable
from repro.diagnosis.operations import Recorder


class EarlyRecorder(Recorder):
    """Records only what may have other bits on another CPU model."""

    def _record(self, function: Any, args: Any, kwargs: Any) -> Any:
        if may_not_be_portable(str(function).partition(".")[2].removesuffix(".default")):
            return super()._record(function, args, kwargs)
        return function(*args, **kwargs)
