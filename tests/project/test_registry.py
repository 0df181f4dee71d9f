"""`make image-digest`, asked of servers that answer as registries do (a real one: system/)."""

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import Project, faults
from registries import GONE, digest_of, index_of, lines


def test_a_registry_that_gives_no_answer_is_one_line(own_project: Project) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        host = f"127.0.0.1:{nobody.getsockname()[1]}"
        (line,) = faults(digest_of(own_project, f"{host}/base/image:1.0@{GONE}"))
    assert host in line
    assert "try again later, or with a network" in line
    (line,) = faults(digest_of(own_project, "ubuntu:24.04"))
    assert "expected a line ARG BASE_IMAGE=NAME:TAG@sha256:DIGEST" in line


class Guarded(BaseHTTPRequestHandler):
    """A registry that wants a token, as the large ones do; it gives one to anyone who asks."""

    realm = ""
    index = json.dumps(index_of("linux/amd64", "linux/arm64", "unknown/unknown")).encode()
    digest = "sha256:" + hashlib.sha256(index).hexdigest()
    blobs: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            asked = parse_qs(urlsplit(self.path).query)
            right = asked == {"service": ["here"], "scope": ["repository:base/image:pull"]}
            self.send_response(200 if right and "Authorization" not in self.headers else 400)
            self.end_headers()
            self.wfile.write(b'{"token": "for-anyone"}')
        else:
            self.answer(self.blobs.get(self.path.rpartition("/")[2], self.index))

    def answer(self, body: bytes) -> None:
        allowed = self.headers["Authorization"] == "Bearer for-anyone"
        self.send_response(200 if allowed else 401)
        if allowed:
            self.send_header("Docker-Content-Digest", self.digest)
        else:
            scope = 'service="here",scope="repository:base/image:pull"'
            self.send_header("WWW-Authenticate", f'Bearer realm="{self.realm}",{scope}')
        self.end_headers()
        self.wfile.write(body if allowed else b"")

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def guarded() -> Iterator[str]:
    """Its host and port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever).start()
        host = f"127.0.0.1:{server.server_address[1]}"
        Guarded.realm = f"http://{host}/token"
        try:
            yield host
        finally:
            server.shutdown()


def test_a_registry_that_wants_a_token_gets_the_one_for_anyone(
    own_project: Project, guarded: str
) -> None:
    image = f"{guarded}/base/image:1.0@{Guarded.digest}"
    said, held = lines(digest_of(own_project, image), 0)
    assert "still has" in said
    assert held == "the pinned image is for linux/amd64, linux/arm64"
    Guarded.realm = "http://192.0.2.1/token"  # elsewhere, and not over https
    (line,) = faults(digest_of(own_project, image))
    assert "https was expected" in line


def served(monkeypatch: pytest.MonkeyPatch, host: str, content: dict[str, object]) -> str:
    """An image whose manifest is that."""
    data = json.dumps(content).encode()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(Guarded, "index", data)
    monkeypatch.setattr(Guarded, "digest", digest)
    return f"{host}/base/image:1.0@{digest}"


def test_a_platform_that_an_index_lacks_is_one_line(
    own_project: Project, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = served(monkeypatch, guarded, index_of("linux/amd64", "linux/s390x"))
    for_arm = ("--platform", "linux/arm64")
    said, line = lines(digest_of(own_project, image, *for_arm), 1)
    assert "still has" in said
    held = "the pinned image is for linux/amd64, linux/s390x, and not for linux/arm64: "
    assert line == f"{held}pin one that is for it (ARG BASE_IMAGE), or take PLATFORM=linux/amd64"
    _, line = lines(digest_of(own_project, image, "--platform", "linux/amd64"), 0)
    assert line == "the pinned image is for linux/amd64, linux/s390x"
    # What make says of a machine, or is told.
    done = own_project.make("image-digest", "PLATFORM=linux/arm64")
    assert done.returncode == 2
    assert held in done.stdout
    image = served(monkeypatch, guarded, index_of("windows/amd64"))
    _, line = lines(digest_of(own_project, image, *for_arm), 1)
    assert line.endswith("or take another base image")


def test_an_image_without_an_index_says_its_platform_in_its_config(
    own_project: Project, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.dumps({"os": "linux", "architecture": "arm64"}).encode()
    digest = "sha256:" + hashlib.sha256(config).hexdigest()
    monkeypatch.setattr(Guarded, "blobs", {digest: config})
    image = served(monkeypatch, guarded, {"schemaVersion": 2, "config": {"digest": digest}})
    _, line = lines(digest_of(own_project, image), 0)
    assert line == "the pinned image is for linux/arm64"


@pytest.mark.parametrize(
    "content",
    [{}, {"manifests": 3}, {"manifests": [{"platform": "linux"}, 3]}, {"config": {}}],
)
def test_what_is_no_index_is_one_line(
    own_project: Project, guarded: str, monkeypatch: pytest.MonkeyPatch, content: dict[str, object]
) -> None:
    image = served(monkeypatch, guarded, content)
    (line,) = faults(digest_of(own_project, image))
    assert "expected an image or an index of images" in line


def test_an_index_that_is_not_what_its_digest_stands_for_is_not_believed(
    own_project: Project, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = served(monkeypatch, guarded, index_of("linux/amd64"))
    monkeypatch.setattr(Guarded, "index", json.dumps(index_of("linux/arm64")).encode())
    (line,) = faults(digest_of(own_project, image))
    assert f"are not those of {image.partition('@')[2]}" in line
