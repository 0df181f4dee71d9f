"""Try a validation before the first step, so that a fault in its numbers costs no epoch.

Promises that nothing of the training changes by it: the model's weights, buffers and modes, what
is registered beside it and the generators are put back, and what the author's code prints is not
shown. One chunk of samples and untrained weights are enough for what the kit refuses by itself. An
error of the author's own code tells nothing: a metric need not be defined for so few samples.
"""

import io
from contextlib import redirect_stdout

from repro.core.errors import UserError
from repro.runs.numbers import number_of
from repro.tasks.task_in_session import TaskInSession


def rehearse_validation(trained: TaskInSession) -> None:
    """Raise UserError for numbers of a validation that a training would be refused for later.

    Not with several processes, which would have to agree on an error of the author's, and not with
    training.compile: what is compiled first may decide about the bits.
    """
    session, task = trained.session, trained.task
    is_alone = session.processes.size == 1 and not trained.config.training.compile
    if not (session.rehearses and is_alone and task.validate_on) or session.finished:
        return
    try:
        with session.undone(), redirect_stdout(io.StringIO()):
            metrics = trained.measured(task.validate_on, of_first_chunk=True)[1]
    except UserError:
        raise
    except Exception:  # the first validation meets it again, or does not
        return
    for name, value in metrics.items():
        number_of("session.validated", name, value)
    if session.best:
        session.best.after(metrics, session.step)
