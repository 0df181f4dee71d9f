"""Check that the base image's tag has the digest that the Dockerfile pins: `make image-digest`.

Asks the registry as the OCI distribution specification says: a HEAD of the manifest, with the token
that anyone gets. It needs no container engine, no login and none of the project's packages. HTTPS
only, except for a registry on this machine. A pinned image can be pulled even after its tag moved,
but not after both were deleted: so keep a copy (`make image-save`).
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import http.client
import json
import re
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from repro.core.bounded import read_whole
from repro.core.errors import UserError

_BASE = re.compile(r"(?m)^ARG BASE_IMAGE=(\S+):([\w.-]+)@(sha256:[0-9a-f]{64})\s*$")
_LONGEST_ANSWER = 1 << 20  # bytes: a token has some thousands
_KINDS = """application/vnd.oci.image.index.v1+json application/vnd.oci.image.manifest.v1+json
application/vnd.docker.distribution.manifest.list.v2+json
application/vnd.docker.distribution.manifest.v2+json"""
_BROKEN = (URLError, OSError, http.client.HTTPException, ValueError, KeyError)
_TIMEOUT = 30  # seconds without a byte


def compare_digest(root: Path) -> int:
    """Print a line on the base image's tag; 0 if it has the pinned digest, else 1.

    UserError if the Dockerfile pins nothing, or the registry gives no answer.
    """
    dockerfile = root / "Dockerfile"
    line = _BASE.search(
        read_whole(dockerfile).decode(errors="replace") if dockerfile.is_file() else ""
    )
    if not line:
        raise UserError(f"{dockerfile}: expected a line ARG BASE_IMAGE=NAME:TAG@sha256:DIGEST")
    name, tag, pinned = line.groups()
    today = digest_of(name, tag)
    if today == pinned:
        print(f"{name}:{tag} still has the pinned digest {pinned}")
        return 0
    change = f"has the digest {today} now" if today else "is gone"
    if digest_of(name, pinned):
        advice = "can still be pulled: run make image-save"
    else:
        advice = "is gone: use a saved image"
    remedy = "or pin another in the Dockerfile (ARG BASE_IMAGE)"
    print(f"{name}:{tag} {change}; the pinned {pinned} {advice}, {remedy}")
    return 1


def digest_of(name: str, reference: str) -> str | None:
    """Ask for the digest that `name` (as after FROM) has for a tag or a digest; None: it has none.

    UserError if the registry gives no answer.
    """
    url = f"{manifests_url(name)}/{reference}"
    try:
        return _head_as_anyone(url)
    except HTTPError as error:
        if error.code == 404:
            return None
        answer = f"{error.code} {error.reason}; try again later, or is it private?"
        raise UserError(f"{url}: {answer}") from None
    except _BROKEN as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise UserError(f"{url}: {reason}; try again later, or with a network") from None


def _head_as_anyone(url: str) -> str:
    """Return the digest at `url`, with the token that anyone gets if the registry asks for one."""
    try:
        return _head(url)
    except HTTPError as error:
        challenge = error.headers.get("WWW-Authenticate", "")
        if error.code != 401 or not challenge.lower().startswith("bearer "):
            raise
    return _head(url, f"Bearer {_token(challenge)}")


def manifests_url(name: str) -> str:
    """Return where the manifests of an image are, e.g. of ubuntu, nvidia/cuda or ghcr.io/a/b."""
    host, _, path = name.partition("/")
    if not path or not (set(".:") & set(host) or host == "localhost"):
        host = "docker.io"
        path = name
    if host == "docker.io":
        host = "registry-1.docker.io"
        path = path if "/" in path else f"library/{path}"
    scheme = "http" if _is_here(host) else "https"
    return f"{scheme}://{host}/v2/{path}/manifests"


def _head(url: str, token: str = "") -> str:
    """Return the digest in the answer's header."""
    request = Request(url, headers={"Accept": ", ".join(_KINDS.split())}, method="HEAD")
    if token:  # for this registry alone, not where it may send us
        request.add_unredirected_header("Authorization", token)
    with urlopen(request, timeout=_TIMEOUT) as answer:
        digest = answer.headers["Docker-Content-Digest"]
        if not digest or (answer.url.startswith("http:") and url.startswith("https:")):
            raise ValueError(f"no digest, or not over https, from {answer.url}")
    return str(digest)


def _token(challenge: str) -> str:
    """Fetch the token that anyone gets from the place that a registry's 401 names."""
    wanted = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = wanted.pop("realm")
    if not realm.startswith("https://") and not _is_here(urlsplit(realm).netloc):
        raise ValueError(f"it sends us to {realm}, and https was expected")
    with urlopen(f"{realm}?{urlencode(wanted)}", timeout=_TIMEOUT) as answer:
        given = json.loads(answer.read(_LONGEST_ANSWER))
    return str(given.get("token") or given["access_token"])


def _is_here(host: str) -> bool:
    return re.fullmatch(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?", host) is not None
