"""Do one training step and one chunk of the validation that follows, by the author's function."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.core.errors import UserError
from repro.runs.registered import Registered
from repro.runs.session import Session
from repro.runs.session_settings import SessionSettings
from repro.runs.step import Step
from repro.training.weighted import BadLoss

if TYPE_CHECKING:
    from torch import nn


class _Looked(BaseException):  # an author's `except Exception` is not to take it
    """There is nothing more to look at."""


class AuditSession(Session):
    """A session of one step. `reason`: why evaluation was not looked at, "" if it was.

    `began(model)` is called before the step, whose batch is there; `trained()` after it.
    """

    def __init__(
        self,
        root: Path,
        config: SessionSettings,
        began: Callable[["nn.Module"], None] = lambda model: None,
        trained: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(root, config)
        self.reason = "the loop does not validate after its first step"
        self._began = began
        self._workers = 0  # operations are recorded in this process
        self._trained = trained
        self._in_step = False
        self._calls = 0

    def look(self, train: Callable[[Session], object]) -> None:
        """Call the author's function until there is nothing more to look at."""
        from torch.nn.modules.module import register_module_forward_pre_hook

        # Not a hook of the model's own: torch's transformer layers take another path with one.
        hook = register_module_forward_pre_hook(self._count)
        try:
            train(self)
        except _Looked:
            pass
        except Exception as error:
            if not self.step and not self._has_operations(error):
                raise
            if self.step:  # of the author's validation, with weights that were trained for a step
                told = f"the validation raised {type(error).__name__}: {error}"
                self.reason = " ".join(told.split())
        finally:
            hook.remove()
            self.close()

    def _has_operations(self, error: Exception) -> bool:
        """Tell whether the step that raised an error went backward: its loss is not finite."""
        bad = isinstance(error, BadLoss) or isinstance(error.__cause__, BadLoss)
        return self._in_step and isinstance(error, UserError) and not bad

    def validated(self, **metrics: Any) -> bool:
        self.reason = ""
        raise _Looked

    def _count(self, module: "nn.Module", _: object) -> None:
        """End at the second chunk of an evaluation: it has the operations of the first one."""
        known = self._registered
        if known and self.step and module is known.model:
            self._calls += 1
            self.reason = ""
            if self._calls > 1:
                raise _Looked

    def _check_precision(self) -> None:
        """Take any precision: the operations of tf32 are those of fp32."""

    def _restore(self, known: Registered) -> None:
        """Begin from the start, whatever there is."""

    def _made(self, step: Step) -> None:
        if step.index:
            raise _Looked
        step.validate_now = True
        self._in_step = True
        self._began(self._known().model)

    def _done(self, step: Step, numbers: dict[str, float]) -> None:
        self._in_step = False
        self._trained()

    def _goes_on(self, step: Step) -> bool:
        raise _Looked
