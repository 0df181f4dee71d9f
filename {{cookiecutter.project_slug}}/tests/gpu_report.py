"""Let `make test-gpu` end in time, and print what it found as lines of docs/guarantees.md.

A test that has not ended when the time is over is stopped, and the tests behind it are dropped;
both are named. A test tells a figure with pytest's `record_property("trace", 1.04)`.
"""

import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import pytest
import torch

from repro.environment.machine import get_hardware

SPARE = 15.0  # seconds that pytest needs after the last test
DROPPED = "dropped: the time is over"


def gpu() -> str:
    """Name the GPU, its driver, and the torch that uses it."""
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU here: nothing was run"
    driver = get_hardware().gpu_driver or "unknown"
    cudnn = torch.backends.cudnn.version()
    name = torch.cuda.get_device_name()
    return f"{name}, driver {driver}, torch {torch.__version__}, cuDNN {cudnn}"


@dataclass
class Found:
    """What came of the cases of a test function."""

    outcomes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    figures: dict[str, object] = field(default_factory=dict)

    def line(self, name: str, where: str) -> str:
        """Return a row of the table in docs/guarantees.md."""
        counts = {each: self.outcomes.count(each) for each in dict.fromkeys(self.outcomes)}
        said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        figures = "; ".join(f"{key} {value}" for key, value in self.figures.items())
        return f"| `{name}` | {said} in {self.seconds:.0f} s | {where} | {figures} |"


class GpuReport:
    """The plugin; `seconds` is what all tests together may take."""

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds - min(SPARE, seconds / 2)
        self.found: dict[str, Found] = {}
        self.dropped: list[str] = []

    @contextmanager
    def _in_time(self, item: pytest.Item) -> Iterator[None]:
        """Stop what runs in the block when the time is over; its commands are ended with it."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._drop(item)

        left = self.ends - time.monotonic()
        if left <= 0:
            self._drop(item)
        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, left)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _drop(self, item: pytest.Item) -> None:
        if item.name not in self.dropped:
            self.dropped.append(item.name)
        pytest.skip(DROPPED)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        with self._in_time(item):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        with self._in_time(item):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.location[2].partition("[")[0]
        found = self.found.setdefault(name, Found())
        found.seconds += report.duration
        if report.when == "call" or report.outcome != "passed":
            dropped = report.skipped and DROPPED in str(report.longrepr)
            found.outcomes.append("dropped" if dropped else report.outcome)
            found.figures |= dict(report.user_properties)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the GPU, the lines for docs/guarantees.md, and what was dropped."""
        where = gpu()
        terminalreporter.section("GPU")
        terminalreporter.write_line(where)
        for name, found in self.found.items():
            if set(found.outcomes) - {"skipped"}:
                terminalreporter.write_line(found.line(name, where))
        for name in self.dropped:
            terminalreporter.write_line(f"dropped, for the time was over: {name}")
