"""`make image-digest`, asked of a real registry on this machine with images pushed to it."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from conftest import Project, faults
from registries import GONE, digest_of, only_line


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
