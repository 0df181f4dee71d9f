"""A console of rich's for the tables and sentences of a command: the same text everywhere."""

import sys

import rich.console


class Console(rich.console.Console):
    """Print on standard output; `width_elsewhere` is the width where that is no terminal.

    Escapes are for terminals alone, whatever FORCE_COLOR and TTY_COMPATIBLE say: the text goes into
    files and through pipes as well.
    """

    def __init__(self, soft_wrap: bool = False, width_elsewhere: int = 80) -> None:
        if sys.stdout.isatty():
            super().__init__(highlight=False, soft_wrap=soft_wrap)
        else:
            super().__init__(
                highlight=False, soft_wrap=soft_wrap, width=width_elsewhere, force_terminal=False
            )

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError again: rich's own ends with 1, a verdict of `compare`."""
        raise
