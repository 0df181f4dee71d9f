"""What is seen while the tests run: how far they are, and the name of a test that failed, at once.

Lines and no bar, for a log that somebody follows as well as for a terminal. pytest's own summary
comes at the end as ever.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import budget
import pytest

EVERY = 20  # seconds


class Progress:
    """Counts tests in the process that starts the workers, or in the only one."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.started = time.monotonic()
        self.told = self.started
        self.total = 0
        self.done = 0
        self.failed = 0
        self.running: dict[str, None] = {}
        self.left: Counter[str] = Counter()  # tests by file
        self.ended = threading.Event()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.total = len(session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        self.total = len(ids)

    def pytest_sessionstart(self) -> None:
        if getattr(self.config.option, "numprocesses", None):
            threading.Thread(target=self.tell, daemon=True).start()

    def pytest_sessionfinish(self) -> None:
        self.ended.set()
        self.say_how_far()
        if self.left:
            files = ", ".join(f"{file} ({count})" for file, count in sorted(self.left.items()))
            self.say(f"NOT RUN, for the time was over: {self.left.total()} tests, of {files}")

    def tell(self) -> None:
        while not self.ended.wait(EVERY):
            self.say_how_far()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running[nodeid] = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """No letters: they would stand between the lines."""
        if isinstance(report, pytest.TestReport):
            if report.failed:
                return ("failed", "", "FAILED") if report.when == "call" else ("error", "", "ERROR")
            if report.skipped or report.when == "call":
                return report.outcome, "", report.outcome.upper()
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed += 1
            lines = (report.longreprtext.strip() or "?").splitlines()
            told = [line for line in lines if line.startswith("E  ")] or lines[-1:]
            self.say(f"FAILED {report.nodeid} {told[0][:160]}")
        if report.skipped and budget.REASON in str(report.longrepr):
            self.left[report.nodeid.partition("::")[0]] += 1
        if report.when == "teardown":
            self.done += 1
            self.running.pop(report.nodeid, None)
            if time.monotonic() - self.told >= 2 * EVERY:  # no thread does it: without workers
                self.say_how_far()

    def say_how_far(self) -> None:
        self.told = time.monotonic()
        if self.total:
            share = 100 * self.done // self.total
            seconds = int(time.monotonic() - self.started)
            counts = f"{self.done} of {self.total} tests, {self.failed} failed, {seconds} s"
            names = [nodeid.rpartition("::")[2].partition("@")[0] for nodeid in [*self.running]]
            self.say(f"{share:3} %  {counts}  {' '.join(names)}"[:160])

    def say(self, line: str) -> None:
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(line)
            reporter.flush()
