"""A process that has imported PyTorch, and answers `python -m ...` by forking itself.

    VENV/bin/python tests/fork_server.py FOLDER

Most of what a command of a project takes is the import of packages that no test changes. This
process imports them once, in the environment variables of the portable profile, and nothing of a
project: for each request on the Unix socket FOLDER/socket it forks, and the child becomes what
`python -m` would have started: arguments, folder, variables, streams, sys.path, a fresh import of
the project's code. The request is JSON; standard input, output and error come with it as file
descriptors; the answer is a line with the process id and one with the exit code. Who closes the
connection before that ends the command. The server ends with the process that started it.

What it does not stand for, because a fork has it from its parent: the start of Python, the re-exec
into a profile, numbers of threads, instruction sets, libraries that are loaded. Tests of those
start real processes. What differs between two real processes by chance has to differ between two
forks, too, or a test could not find it: see `differ`.

sys.executable is FOLDER/python in the child: what the project's code starts with it comes back here
(fork_client.py), unless its variables or arguments ask for a real process.
"""

import atexit
import gc
import importlib
import json
import os
import random
import runpy
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

Request = dict[str, Any]


# What commands import of the environment. Nothing may compute here: no pool of threads has a fork.
PACKAGES = """
concurrent.futures.process email.message logging.handlers multiprocessing.connection
urllib.request zipfile hydra hydra.core.override_parser.overrides_parser hydra.core.plugins
omegaconf yaml pydantic.main pydantic.functional_validators pydantic.plugin._schema_validator
numpy numpy.ctypeslib tomllib torch torch._dynamo torch.distributed torch.utils.data torchvision
safetensors.torch
PIL.Image PIL.PngImagePlugin matplotlib.backends.backend_agg matplotlib.figure rich.progress
"""


def prepare() -> None:
    """Import the packages, in one thread."""
    before = threads()
    for name in PACKAGES.split():
        importlib.import_module(name)
    sys.modules["hydra.core.plugins"].Plugins.instance()  # looks through hydra's own
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that it looks at
    started = threads() - before
    assert not started, f"{started} threads were started: a fork has none of them"
    assert not [name for name in sys.modules if name.split(".")[0] in ("repro", "experiment")]


def threads() -> int:
    """One, and in an emulator those that it has for itself: it starts them anew after a fork."""
    return len(os.listdir("/proc/self/task"))


class Server:
    """Commands that run, by the connection of who waits for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[socket.socket, int] = {}
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "socket"))
        self.listener.listen(64)
        self.ended, self.wakeup = socket.socketpair()  # a byte when a child has ended
        for end in (self.ended, self.wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(self.wakeup.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest, whose end ends us
        for source in (self.listener, self.ended, sys.stdin.fileno()):
            self.selector.register(source, selectors.EVENT_READ)

    def serve(self) -> None:
        """Answer requests until the process that started this one is gone."""
        while True:
            sources = [key.fileobj for key, _ in self.selector.select()]
            if sys.stdin.fileno() in sources:
                for pid in self.running.values():
                    end_group(pid)
                shutil.rmtree(self.folder)
                return
            for source in sources:
                if source is self.listener:
                    self.start()
                elif source is self.ended:
                    self.ended.recv(4096)
                elif isinstance(source, socket.socket) and source in self.running:
                    self.selector.unregister(source)  # its client is gone
                    end_group(self.running[source])
            self.answer()

    def start(self) -> None:
        connection, _ = self.listener.accept()
        request, streams = receive(connection)
        pid = os.fork()
        if pid == 0:
            self.selector.close()
            for other in (self.listener, self.ended, self.wakeup, connection, *self.running):
                other.close()
            become(self.folder, request, streams)
        for stream in streams:
            os.close(stream)
        say(connection, {"pid": pid})
        self.running[connection] = pid
        self.selector.register(connection, selectors.EVENT_READ)

    def answer(self) -> None:
        """Say how those ended that have."""
        for connection, pid in [*self.running.items()]:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                say(connection, {"code": os.waitstatus_to_exitcode(status)})
                del self.running[connection]
                if connection in self.selector.get_map():
                    self.selector.unregister(connection)
                connection.close()


def receive(connection: socket.socket) -> tuple[Request, list[int]]:
    """A request and its three streams."""
    head, streams, _, _ = socket.recv_fds(connection, 8, 3, socket.MSG_WAITALL)
    size = int.from_bytes(head, "big")
    data = bytearray()
    while len(data) < size:
        data += connection.recv(size - len(data))
    return json.loads(data), streams


def say(connection: socket.socket, answer: Request) -> None:
    with suppress(OSError):  # nobody waits for it any more
        connection.sendall(json.dumps(answer).encode() + b"\n")


def end_group(pid: int) -> None:
    """End a command that nobody waits for, with all that it started."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(pid, signal.SIGKILL)  # it has not come to its own group yet


def become(folder: Path, request: Request, streams: list[int]) -> NoReturn:
    """Be the process that `python -m MODULE ARGUMENTS...` would be; returns to nobody."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        open_streams()
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        time.tzset()
        tempfile.tempdir = None
        sys.executable = str(folder / "python")
        sys.argv = ["-m", *request["arguments"]]  # as it is while `python -m` looks for the module
        sys.orig_argv = [sys.executable, "-m", request["module"], *request["arguments"]]
        sys.path[0] = os.getcwd()
        kept = differ()
        code = run(request["module"])
        del kept
    finally:
        end(code)


def open_streams() -> None:
    """Make Python's streams anew: it knows of each whether one can seek in it, as at its start."""
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # open as long as the process is
    for name, number in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        kept = {"encoding": old.encoding, "errors": old.errors}
        new = open(number, "w", closefd=False, **kept)  # noqa: SIM115
        new.reconfigure(line_buffering=name == "stderr" or os.isatty(number))
        setattr(sys, name, new)


def differ() -> list[object]:
    """Let chance be chance: other numbers, other addresses, other bytes in memory that was freed.

    Two real processes have other random layouts of memory; forks of one process have the same, so
    code that depends on it would seem to repeat itself.
    """
    import numpy as np

    draw = random.Random(os.urandom(16))
    random.seed()
    np.random.seed()  # the global one is what code without seeds draws from
    small = [bytes(draw.randrange(480)) for _ in range(draw.randrange(3000))]  # Python's own pools
    least = [object() for _ in range(draw.randrange(1000))]
    large = [draw.randbytes(draw.randrange(2 << draw.randrange(4, 17))) for _ in range(300)]
    draw.shuffle(large)
    return [*small, *least, *large[:60]]


def run(module: str) -> int:
    """The exit code that Python would give."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as asked:
        if asked.code is None or isinstance(asked.code, int):
            return (asked.code or 0) & 0xFF
        print(asked.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def end(code: int) -> NoReturn:
    """As Python ends, but for the modules of the parent, which nobody has to take apart."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    prepare()
    server = Server(Path(sys.argv[1]))
    print("ready", flush=True)
    server.serve()
