"""What a run needs around it: variables, locks, installed packages, libraries, base image.

Nothing here imports more than the standard library: the doctor has to run where packages are
missing.
"""

from repro.environment.profile import PROFILES, enter, enter_early, require

__all__ = ["PROFILES", "enter", "enter_early", "require"]
