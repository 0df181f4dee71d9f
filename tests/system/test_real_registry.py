"""`make image-digest`, asked of a real registry on this machine with images pushed to it."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from email.message import Message
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from conftest import HANGS, Project, free_port
from registries import GONE, digest_of, lines, pinned

OCI = "application/vnd.oci.image"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry: its host and port."""
    if not shutil.which("docker-registry"):
        assert not os.environ.get("CI"), "docker-registry is not installed"
        pytest.skip("docker-registry is not installed")
    folder = tmp_path_factory.mktemp("registry")
    host = f"127.0.0.1:{free_port()}"
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder)}, "delete": {"enabled": True}},
        "http": {"addr": host},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    command = ["docker-registry", "serve", str(folder / "config.yml")]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as server:
        try:
            deadline = time.monotonic() + HANGS
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
    manifest = put(url, "inner", *kinds) | {"platform": {"os": "linux", "architecture": "amd64"}}
    return put(url, tag, "index", {"manifests": [manifest]})["digest"]


def put(url: str, tag: str, kind: str, content: dict[str, object]) -> dict[str, str]:
    kind = f"{OCI}.{kind}.v1+json"
    data = json.dumps({"schemaVersion": 2, "mediaType": kind, **content}).encode()
    digest = send(f"{url}/manifests/{tag}", data, kind)["Docker-Content-Digest"]
    return {"mediaType": kind, "size": len(data), "digest": digest}  # type: ignore[dict-item]


def test_a_tag_that_has_the_pinned_digest_is_one_line_and_0(
    registry: str, own_project: Project
) -> None:
    digest = push(registry, "1.0", "first")
    pinned(own_project, f"{registry}/base/image:1.0@{digest}")
    first, second = lines(own_project.run("make", "image-digest", "PLATFORM=linux/amd64"), 0)
    assert first == f"{registry}/base/image:1.0 still has the pinned digest {digest}"
    assert second == "the pinned image is for linux/amd64"
    done = own_project.run("python3", "-m", "repro", "image-digest", "--platform", "linux/arm64")
    _, second = lines(done, 1)
    assert second.startswith("the pinned image is for linux/amd64, and not for linux/arm64: pin")


def test_a_tag_that_moved_or_went_is_named_with_what_to_do(
    registry: str, own_project: Project
) -> None:
    image = f"{registry}/base/image"
    first, second = push(registry, "2.0", "one"), push(registry, "2.0", "another")
    assert first != second
    line, held = lines(digest_of(own_project, f"{image}:2.0@{first}"), 1)
    assert f"{image}:2.0 has the digest {second} now; the pinned {first} can still" in line
    assert held == "the pinned image is for linux/amd64"
    (line,) = lines(digest_of(own_project, f"{image}:2.0@{GONE}"), 1)
    assert f"the pinned {GONE} is gone: use a saved image" in line
    line, _ = lines(digest_of(own_project, f"{image}:3.0@{first}"), 1)
    assert f"{image}:3.0 is gone; the pinned {first} can still" in line
    assert "make image-save" in line
    send(f"http://{registry}/v2/base/image/manifests/{first}", how="DELETE")
    (line,) = lines(digest_of(own_project, f"{image}:3.0@{first}"), 1)
    assert f"{image}:3.0 is gone; the pinned {first} is gone" in line
