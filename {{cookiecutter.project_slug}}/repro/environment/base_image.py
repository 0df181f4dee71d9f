"""Check that the base image's tag has the digest that the Dockerfile pins: `make image-digest`.

Also says for which platforms the pinned image is, and fails if the wanted one is missing. Asks the
registry as the OCI distribution specification says: a HEAD of the tag's manifest, and a GET of the
pinned one, with the token that anyone gets. What is fetched is believed only if it has the SHA-256
that was asked for. It needs no container engine, no login and none of the project's packages. HTTPS
only, except for a registry on this machine. A pinned image can be pulled even after its tag moved,
but not after both were deleted: so keep a copy (`make image-save`).
"""

from __future__ import annotations  # `make image-digest` runs with older Pythons, too

import hashlib
import http.client
import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from repro.core.bounded import parse_json, read_whole
from repro.core.errors import UserError

_PLATFORMS = ("linux/amd64", "linux/arm64")  # for which the Dockerfile is written

_BASE = re.compile(r"(?m)^ARG BASE_IMAGE=(\S+):([\w.-]+)@(sha256:[0-9a-f]{64})\s*$")
_LONGEST_ANSWER = 1 << 22  # bytes: the most that registries take for a manifest
_KINDS = """application/vnd.oci.image.index.v1+json application/vnd.oci.image.manifest.v1+json
application/vnd.docker.distribution.manifest.list.v2+json
application/vnd.docker.distribution.manifest.v2+json"""
_BROKEN = (URLError, OSError, http.client.HTTPException, ValueError, KeyError)
_TIMEOUT = 30  # seconds without a byte


def compare_digest(root: Path, wanted: str = "") -> int:
    """Print a line on the base image's tag, and one on the platforms that the pinned image is for.

    0 if the tag has the pinned digest and the image is for `wanted` (such as linux/arm64; "" stands
    for any), else 1. UserError if the Dockerfile pins nothing, or the registry gives no answer.
    """
    dockerfile = root / "Dockerfile"
    line = _BASE.search(
        read_whole(dockerfile).decode(errors="replace") if dockerfile.is_file() else ""
    )
    if not line:
        raise UserError(f"{dockerfile}: expected a line ARG BASE_IMAGE=NAME:TAG@sha256:DIGEST")
    name, tag, pinned = line.groups()
    today = digest_of(name, tag)
    there = today == pinned or digest_of(name, pinned) is not None
    if today == pinned:
        print(f"{name}:{tag} still has the pinned digest {pinned}")
    else:
        change = f"has the digest {today} now" if today else "is gone"
        advice = (
            "can still be pulled: run make image-save" if there else "is gone: use a saved image"
        )
        remedy = "or pin another in the Dockerfile (ARG BASE_IMAGE)"
        print(f"{name}:{tag} {change}; the pinned {pinned} {advice}, {remedy}")
    fits = there and _says_platforms(name, pinned, wanted)
    return 0 if today == pinned and fits else 1


def _says_platforms(name: str, digest: str, wanted: str) -> bool:
    """Print which platforms an image is for; tell whether `wanted` is among them."""
    found = image_platforms(name, digest)
    held = f"the pinned image is for {', '.join(found) or 'no platform that it names'}"
    if wanted and wanted not in found:
        remedy = f"pin one that is for it (ARG BASE_IMAGE), or take {_options(found)}"
        print(f"{held}, and not for {wanted}: {remedy}")
        return False
    print(held)
    return True


def _options(found: list[str]) -> str:
    """Say which PLATFORM of ours an image is for."""
    ours = [f"PLATFORM={platform}" for platform in found if platform in _PLATFORMS]
    return " or ".join(ours) or "another base image"


def digest_of(name: str, reference: str) -> str | None:
    """Ask for the digest that `name` (as after FROM) has for a tag or a digest; None: it has none.

    UserError if the registry gives no answer.
    """
    answer = _answer(f"{manifests_url(name)}/{reference}", "HEAD")
    return answer.digest if answer else None


def image_platforms(name: str, digest: str) -> list[str]:
    """Return the platforms that an image is for, such as linux/arm64.

    An index names them; an image alone names its own in its config. UserError if the registry gives
    no answer, or one that is not what the digest stands for.
    """
    url = f"{manifests_url(name)}/{digest}"
    try:
        manifest = _content(url, digest)
        if "manifests" in manifest:
            entries = [entry.get("platform") or {} for entry in manifest["manifests"]]
            found = [each for each in entries if "os" in each and "architecture" in each]
        else:
            config = manifest["config"]["digest"]
            found = [_content(f"{url.rpartition('/manifests/')[0]}/blobs/{config}", config)]
        named = {f"{each['os']}/{each['architecture']}" for each in found}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{url}: expected an image or an index of images: {error}") from None
    # What is there for no machine, such as how the image was built, is for unknown/unknown.
    return sorted(each for each in named if re.fullmatch(r"(?!unknown)[\w.-]+/[\w.-]+", each))


def _content(url: str, digest: str) -> Any:
    """Fetch what is JSON by the SHA-256 of its bytes; ValueError if they have another one."""
    answer = _answer(url, "GET")
    if answer is None:
        raise ValueError("there is none any more")
    if "sha256:" + hashlib.sha256(answer.body).hexdigest() != digest:
        raise ValueError(f"the {len(answer.body)} bytes that came are not those of {digest}")
    return parse_json(answer.body)


class _Answer(NamedTuple):
    """What a registry says: the digest in its header, and the bytes (none for a HEAD)."""

    digest: str
    body: bytes


def _answer(url: str, method: str) -> _Answer | None:
    """Ask with the token that anyone gets if the registry wants one; None: nothing is there."""
    try:
        return _ask_as_anyone(url, method)
    except HTTPError as error:
        if error.code == 404:
            return None
        answer = f"{error.code} {error.reason}; try again later, or is it private?"
        raise UserError(f"{url}: {answer}") from None
    except _BROKEN as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise UserError(f"{url}: {reason}; try again later, or with a network") from None


def _ask_as_anyone(url: str, method: str) -> _Answer:
    try:
        return _ask(url, method)
    except HTTPError as error:
        challenge = error.headers.get("WWW-Authenticate", "")
        if error.code != 401 or not challenge.lower().startswith("bearer "):
            raise
    return _ask(url, method, f"Bearer {_token(challenge)}")


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


def _ask(url: str, method: str, token: str = "") -> _Answer:
    request = Request(url, headers={"Accept": ", ".join(_KINDS.split())}, method=method)
    if token:  # for this registry alone, not where it may send us
        request.add_unredirected_header("Authorization", token)
    with urlopen(request, timeout=_TIMEOUT) as answer:
        digest = answer.headers["Docker-Content-Digest"] or ""
        if answer.url.startswith("http:") and url.startswith("https:"):
            raise ValueError(f"not over https, from {answer.url}")
        if method == "HEAD" and not digest:
            raise ValueError(f"no digest, from {answer.url}")
        return _Answer(str(digest), answer.read(_LONGEST_ANSWER))


def _token(challenge: str) -> str:
    """Fetch the token that anyone gets from the place that a registry's 401 names."""
    wanted = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = wanted.pop("realm")
    if not realm.startswith("https://") and not _is_here(urlsplit(realm).netloc):
        raise ValueError(f"it sends us to {realm}, and https was expected")
    with urlopen(f"{realm}?{urlencode(wanted)}", timeout=_TIMEOUT) as answer:
        given = parse_json(answer.read(_LONGEST_ANSWER))
    return str(given.get("token") or given["access_token"])


def _is_here(host: str) -> bool:
    return re.fullmatch(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?", host) is not None
