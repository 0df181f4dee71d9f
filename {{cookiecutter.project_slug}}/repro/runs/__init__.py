"""A run and its folder: settings, conditions, context, trace, logs, comparison, pictures.

`__all__` holds what an author may call. Some modules import torch or Hydra, so a name is
imported only when it is used: this package may be imported before the profile is in force.
`repro.runs.sweep.sweep` has the name of its module, so it is not among them.
"""

from typing import TYPE_CHECKING

from repro.core.lazy import importer, listed_names

_NAMES = {
    "repro.runs.configuration": (
        "Loader",
        "power_of_two",
        "run_name",
        "settings_beside",
        "settings_of",
    ),
    "repro.runs.code_files": ("code_files",),
    "repro.runs.conditions": (
        "Conditions",
        "DatasetFacts",
        "Facts",
        "Situation",
        "conditions_here",
    ),
    "repro.runs.context": ("Context", "log_experiment_context", "read_context"),
    "repro.runs.evaluation": ("best_step", "evaluation_places"),
    "repro.runs.continued": ("refuse_other_run", "refuse_other_training", "trained_with"),
    "repro.runs.git": ("GitInfo", "get_git_info", "uncommitted_changes"),
    "repro.runs.folder": ("Run", "find_start", "open_run"),
    "repro.runs.session": ("Session",),
    "repro.runs.step": ("Step",),
    "repro.runs.evaluation_session": ("EvaluationSession",),
    "repro.runs.logs": ("Entry", "read_lines", "read_trace"),
    "repro.runs.fingerprints": ("Quantities", "fingerprint", "state_quantities"),
    "repro.runs.trace": ("StepInputs", "Trace", "step_quantities"),
    "repro.runs.compare": ("compare_runs",),
    "repro.runs.figures": ("draw_curves", "draw_seeds"),
}

if TYPE_CHECKING:
    from repro.runs.code_files import code_files as code_files
    from repro.runs.compare import compare_runs as compare_runs
    from repro.runs.conditions import Conditions as Conditions
    from repro.runs.conditions import DatasetFacts as DatasetFacts
    from repro.runs.conditions import Facts as Facts
    from repro.runs.conditions import Situation as Situation
    from repro.runs.conditions import conditions_here as conditions_here
    from repro.runs.configuration import Loader as Loader
    from repro.runs.configuration import power_of_two as power_of_two
    from repro.runs.configuration import run_name as run_name
    from repro.runs.configuration import settings_beside as settings_beside
    from repro.runs.configuration import settings_of as settings_of
    from repro.runs.context import Context as Context
    from repro.runs.context import log_experiment_context as log_experiment_context
    from repro.runs.context import read_context as read_context
    from repro.runs.continued import refuse_other_run as refuse_other_run
    from repro.runs.continued import refuse_other_training as refuse_other_training
    from repro.runs.continued import trained_with as trained_with
    from repro.runs.evaluation import best_step as best_step
    from repro.runs.evaluation import evaluation_places as evaluation_places
    from repro.runs.evaluation_session import EvaluationSession as EvaluationSession
    from repro.runs.figures import draw_curves as draw_curves
    from repro.runs.figures import draw_seeds as draw_seeds
    from repro.runs.fingerprints import Quantities as Quantities
    from repro.runs.fingerprints import fingerprint as fingerprint
    from repro.runs.fingerprints import state_quantities as state_quantities
    from repro.runs.folder import Run as Run
    from repro.runs.folder import find_start as find_start
    from repro.runs.folder import open_run as open_run
    from repro.runs.git import GitInfo as GitInfo
    from repro.runs.git import get_git_info as get_git_info
    from repro.runs.git import uncommitted_changes as uncommitted_changes
    from repro.runs.logs import Entry as Entry
    from repro.runs.logs import read_lines as read_lines
    from repro.runs.logs import read_trace as read_trace
    from repro.runs.session import Session as Session
    from repro.runs.step import Step as Step
    from repro.runs.trace import StepInputs as StepInputs
    from repro.runs.trace import Trace as Trace
    from repro.runs.trace import step_quantities as step_quantities
else:
    __getattr__ = importer(__name__, _NAMES)

__all__ = listed_names(_NAMES)
