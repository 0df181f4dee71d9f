"""`make image-digest`, asked of a real registry on this machine with images pushed to it."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import URLError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest
from conftest import Project, faults
from repro.environment.base_image import manifests_url

OCI = "application/vnd.oci.image"
GONE = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry: its host and port."""
    if not shutil.which("docker-registry"):
        assert not os.environ.get("CI"), "docker-registry is not installed"
        pytest.skip("docker-registry is not installed")
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder)}, "delete": {"enabled": True}},
        "http": {"addr": host},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    command = ["docker-registry", "serve", str(folder / "config.yml")]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as server:
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    urlopen(f"http://{host}/v2/").close()
                    break
                except URLError:
                    assert time.monotonic() < deadline, (folder / "log").read_text()
                    time.sleep(0.1)
            yield host
        finally:
            server.terminate()


def send(url: str, data: bytes = b"", kind: str = "", how: str = "PUT") -> Message:
    """The headers of the answer."""
    headers = {"Content-Type": kind or "application/octet-stream"}
    with urlopen(Request(url, data=data, headers=headers, method=how)) as answer:
        return answer.headers  # type: ignore[no-any-return]


def push(host: str, tag: str, word: str) -> str:
    """An image index, as base images have, with one image whose only content is `word`."""
    url = f"http://{host}/v2/base/image"
    content = json.dumps({"word": word}).encode()
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    place = send(f"{url}/blobs/uploads/", how="POST")["Location"]
    send(f"{place}&digest={digest}", content)
    blob = {"mediaType": f"{OCI}.config.v1+json", "size": len(content), "digest": digest}
    layer = {**blob, "mediaType": f"{OCI}.layer.v1.tar"}
    kinds = ("manifest", {"config": blob, "layers": [layer]})
    manifest = put(url, "inner", *kinds)
    return put(url, tag, "index", {"manifests": [manifest]})["digest"]


def put(url: str, tag: str, kind: str, content: dict[str, object]) -> dict[str, str]:
    kind = f"{OCI}.{kind}.v1+json"
    data = json.dumps({"schemaVersion": 2, "mediaType": kind, **content}).encode()
    digest = send(f"{url}/manifests/{tag}", data, kind)["Docker-Content-Digest"]
    return {"mediaType": kind, "size": len(data), "digest": digest}  # type: ignore[dict-item]


def pinned(project: Project, image: str) -> Project:
    """The project with that base image."""
    path = project.path / "Dockerfile"
    lines = path.read_text().splitlines()
    lines = [f"ARG BASE_IMAGE={image}" if x.startswith("ARG BASE_IMAGE=") else x for x in lines]
    path.write_text("\n".join(lines) + "\n")
    return project


def digest_of(project: Project, image: str) -> subprocess.CompletedProcess[str]:
    """As `make image-digest` does it, with a Python that has none of the project's packages."""
    return pinned(project, image).run("python3", "-m", "repro", "image-digest")


def only_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert not done.stderr
    return line


def test_a_tag_that_has_the_pinned_digest_is_one_line_and_0(
    registry: str, own_project: Project
) -> None:
    digest = push(registry, "1.0", "first")
    pinned(own_project, f"{registry}/base/image:1.0@{digest}")
    line = only_line(own_project.run("make", "image-digest"), 0)
    assert line == f"{registry}/base/image:1.0 still has the pinned digest {digest}"


def test_a_tag_that_moved_or_went_is_named_with_what_to_do(
    registry: str, own_project: Project
) -> None:
    image = f"{registry}/base/image"
    first, second = push(registry, "2.0", "one"), push(registry, "2.0", "another")
    assert first != second
    line = only_line(digest_of(own_project, f"{image}:2.0@{first}"), 1)
    assert f"{image}:2.0 has the digest {second} now; the pinned {first} can still" in line
    line = only_line(digest_of(own_project, f"{image}:2.0@{GONE}"), 1)
    assert f"the pinned {GONE} is gone: use a saved image" in line
    line = only_line(digest_of(own_project, f"{image}:3.0@{first}"), 1)
    assert f"{image}:3.0 is gone; the pinned {first} can still" in line
    assert "make image-save" in line
    send(f"http://{registry}/v2/base/image/manifests/{first}", how="DELETE")
    line = only_line(digest_of(own_project, f"{image}:3.0@{first}"), 1)
    assert f"{image}:3.0 is gone; the pinned {first} is gone" in line


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

    def do_HEAD(self) -> None:
        allowed = self.headers["Authorization"] == "Bearer for-anyone"
        self.send_response(200 if allowed else 401)
        if allowed:
            self.send_header("Docker-Content-Digest", GONE)
        else:
            scope = 'service="here",scope="repository:base/image:pull"'
            self.send_header("WWW-Authenticate", f'Bearer realm="{self.realm}",{scope}')
        self.end_headers()

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        right = asked == {"service": ["here"], "scope": ["repository:base/image:pull"]}
        self.send_response(200 if right and "Authorization" not in self.headers else 400)
        self.end_headers()
        self.wfile.write(b'{"token": "for-anyone"}')

    def log_message(self, *words: object) -> None:
        pass


def test_a_registry_that_wants_a_token_gets_the_one_for_anyone(own_project: Project) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever).start()
        host = f"127.0.0.1:{server.server_address[1]}"
        image = f"{host}/base/image:1.0@{GONE}"
        try:
            Guarded.realm = f"http://{host}/token"
            assert "still has" in only_line(digest_of(own_project, image), 0)
            Guarded.realm = "http://192.0.2.1/token"  # elsewhere, and not over https
            (line,) = faults(digest_of(own_project, image))
            assert "https was expected" in line
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("ubuntu", "https://registry-1.docker.io/v2/library/ubuntu/manifests"),
        ("docker.io/ubuntu", "https://registry-1.docker.io/v2/library/ubuntu/manifests"),
        ("nvidia/cuda", "https://registry-1.docker.io/v2/nvidia/cuda/manifests"),
        ("ghcr.io/a/b", "https://ghcr.io/v2/a/b/manifests"),
        ("example.org:5000/a", "https://example.org:5000/v2/a/manifests"),
        ("localhost:5000/a/b", "http://localhost:5000/v2/a/b/manifests"),
        ("127.0.0.1.example.org/a", "https://127.0.0.1.example.org/v2/a/manifests"),
    ],
)
def test_a_name_means_what_it_means_to_docker(name: str, url: str) -> None:
    assert manifests_url(name) == url
