"""Which tests are not begun any more where the time is over: .ci/run has 90 minutes on any machine.

No test fails because a machine is slow. TESTS_END is the time, in seconds since 1970, from which on
no test begins. Those that take long (order.takes_long) do not begin in the last minutes before it:
the many short ones come behind them, and one that has begun is not ended. What was not run is named
at the end (progress.py).
"""

import os

ENDS = "TESTS_END"
FOR_SHORT_ONES = 15 * 60  # seconds
REASON = f"not run: the time is over ({ENDS})"


def is_over(now: float, is_long: bool) -> bool:
    """Tell whether a test is not to begin any more."""
    end = os.environ.get(ENDS)
    return end is not None and now >= float(end) - (FOR_SHORT_ONES if is_long else 0)
