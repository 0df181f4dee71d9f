"""The training loop of a task, and its evaluation, on a session.

`train_task` is a whole training, to be read from top to bottom. An author who needs another loop
writes it on the same session (repro/runs/session.py), in experiment/train.py.
"""

from repro.core.files import JsonObject
from repro.runs.evaluation_session import EvaluationSession
from repro.runs.session import Session
from repro.tasks.rates import Rates
from repro.tasks.reading import numbers_of
from repro.tasks.rehearsal import rehearse_validation
from repro.tasks.samples import collate_of, samplers_of
from repro.tasks.task_in_session import TaskInSession

_WORSE = "validations without a better one"  # a session's note


def train_task(session: Session) -> None:
    """Train the task of a session's project to its last step."""
    trained = TaskInSession(session)
    settings = session.config.training
    trained.refuse_no_validation(settings.patience)
    optimizers = trained.optimizers()
    rates = Rates(optimizers)
    trained.register(optimizers)
    rehearse_validation(trained)
    train = trained.datasets["train"]
    for step in session.steps(
        train,
        settings.batch_size,
        epochs=settings.epochs,
        steps=settings.steps,
        drop_last=settings.drop_last,
        collate=collate_of(train),
        validate_every=session.config.evaluation.every,
        **samplers_of(train),
    ):
        chosen = rates.set(trained.task.rate(step.index, session.steps_in_all))
        step.done(**numbers_of(trained.task.train_step(step), chosen))
        if step.validate_now and trained.task.validate_on:
            is_better = session.validated(**trained.validation())
            if lost_patience(session, is_better, settings.patience):
                session.stop()


def evaluate_task(session: EvaluationSession) -> JsonObject:
    """Return the metrics of the task's test samples, and draw them."""
    trained = TaskInSession(session)
    trained.register({})
    outputs, metrics = trained.measured(trained.task.test_on)
    for folder in session.figures:
        folder.mkdir(exist_ok=True)
        trained.draw(outputs, folder)
    session.draw_curves()
    return {**metrics, **trained.details(outputs, metrics)}


def lost_patience(session: Session, is_better: bool, patience: int | None) -> bool:
    """Count the validations since the best one; tell if there were `patience` of them."""
    worse = 0 if is_better else int(session.notes.get(_WORSE, 0)) + 1  # type: ignore[arg-type]
    if patience is None:
        return False
    session.notes[_WORSE] = worse
    return worse >= patience
