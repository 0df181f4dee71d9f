"""What a run needs around it: variables, locks, installed packages, libraries, base image.

Imports the standard library alone: the doctor has to run where packages are missing.
"""

from repro.environment.profile import PROFILES, enter, require

__all__ = ["PROFILES", "enter", "require"]
