"""A real headless browser (Debian's chromium, or Chrome), driven over DevTools' pipe.

It finds no host and has a profile of its own. What the page asks for is kept.
"""

import base64
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


class NoBrowser(Exception):
    """Why there is none."""


class Browser:
    """One page of a running browser."""

    def __init__(self, to: BinaryIO, back: BinaryIO) -> None:
        self.to, self.back, self.number, self.session = to, back, 0, ""
        self.requests: list[str] = []  # addresses, since the last `show`
        self.loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        self.call("Page.enable")
        self.call("Network.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask DevTools for something and wait for the answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self.number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        """The next message; events are noted."""
        data = bytearray()
        while (byte := self.back.read(1)) != b"\0":
            assert byte, "the browser ended"
            data += byte
        message: dict[str, Any] = json.loads(data)
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        self.loaded |= message.get("method") == "Page.loadEventFired"
        return message

    def show(self, path: Path, width: int, scheme: str = "light", media: str = "screen") -> None:
        """Load a file at that width in CSS pixels, as a reader with that preference sees it."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.requests, self.loaded = [], False
        self.call("Page.navigate", url=path.as_uri())
        while not self.loaded:
            self._read()

    def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression gives in the page, as JSON."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, path: Path) -> None:
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self) -> bytes:
        return base64.b64decode(self.call("Page.printToPDF", paperWidth=8.27)["data"])


@contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """A browser with its profile in `folder`; NoBrowser says why there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        raise NoBrowser("needs chromium (Debian's package) or google-chrome")
    (in_here, to), (back, out_there) = os.pipe(), os.pipe()
    options = [
        "--headless",
        "--remote-debugging-pipe",  # on the file descriptors 3 and 4
        f"--user-data-dir={folder}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--disable-background-networking",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-first-run",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ]
    # Moved away first, for one of them may be 3 or 4 itself.
    shell = f'exec 8<&{in_here} 9>&{out_there} && exec "$@" 3<&8 4>&9'
    with (folder / "log").open("w") as log:
        started = subprocess.Popen(
            ["bash", "-c", shell, "bash", program, *options],
            pass_fds=(in_here, out_there),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    alarm = threading.Timer(1200, started.kill)  # a browser that hangs ends the test, not CI
    alarm.start()
    os.close(in_here)
    os.close(out_there)
    try:
        with os.fdopen(to, "wb", buffering=0) as writer, os.fdopen(back, "rb") as reader:
            yield Browser(writer, reader)
    finally:
        alarm.cancel()
        started.kill()
        started.wait()
