"""Who made the project of the tests of anonymous archives: identities, and where they stand.

Each identity stands in a place and a spelling of its own, so that each is found for itself.
"""

import gzip
import io
import json
import re
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote_to_bytes

from conftest import VENV, Project, clean_environ, commit, git

HOST = "thornbox17"
USER = "zthornbury"
CITATION = """\
cff-version: 1.2.0
title: A title
message: Cite it
authors:
  - given-names: Zoë
    family-names: Thornbury
    orcid: https://orcid.org/0000-0002-1825-0097
    email: zoe@cs.hollowell.example
doi: 10.5281/zenodo.7654321
repository-code: https://git.hollowell.example/quaglab/secretnet
"""
REMOTE = "git@code.hollowell.example:penhaligon/net.git"
PNG = b"\x89PNG\r\n\x1a\n"


def machine(folder: Path, user: str = USER) -> dict[str, str]:
    """The variables of an author's machine: user, home, and git's configuration in it."""
    home = folder / "home" / user
    home.mkdir(parents=True, exist_ok=True)
    config = f"[user]\n\tname = Ada {user.title()}\n\temail = {user}@mail.example\n"
    (home / ".gitconfig").write_text(config)
    return {"HOME": str(home), "USER": user, "LOGNAME": user, "GIT_CONFIG_NOSYSTEM": "1"}


def clone(project: Project, target: Path) -> Project:
    """Another clone with the runs and the data."""
    source = project.path.parent.parent
    subprocess.run(["git", "clone", "--quiet", source, target], check=True)
    path = target / "paper" / project.path.name
    for name in ("runs", "data"):
        shutil.copytree(project.path / name, path / name, symlinks=True)
    return Project(path)


def run_of(project: Project) -> Path:
    (found,) = (project.path / "runs" / "record" / "short").glob("*/seed-42")
    return found


def plant(project: Project) -> dict[str, str]:
    """Let 24 identities stand in files that are no condition, and commit; by what they are."""
    docs = project.path / "docs"
    docs.mkdir()
    (project.path / "CITATION.cff").write_text(CITATION)
    licence = project.path / "LICENSE"
    licence.write_text(licence.read_text().replace("The Authors", "2026 Grace Fennimore"))
    project.edit("pyproject.toml", '"The Authors"', '"Li Wei", email = "liwei@x.example"')
    git(project, "remote", "add", "lab", REMOTE)
    head, recorded, tree = git(project, "rev-parse", "HEAD", "HEAD~1", "HEAD^{tree}").split()
    blob = git(project, "rev-parse", "HEAD:./LICENSE")
    found = {
        **{"author": "Zoë Thornbury", "family name": "thornbury", "ORCID": "0000-0002-1825-0097"},
        **{"address": "zoe@cs.hollowell.example", "DOI": "10.5281/zenodo.7654321"},
        **{"repository": "git.hollowell.example/quaglab/secretnet", "owner": "quaglab"},
        **{"another author": "Li Wei", "copyright": "Fennimore", "remote": "penhaligon"},
        **{"recorded commit": recorded, "short commit": head[:12], "tree": tree, "blob": blob},
        **{"user": USER, "home": f"/home/{USER}", "host": HOST, "tracked run": "c0ffee1234567890"},
        **{"tracker group": "quaglings", "git address": f"{USER}@mail.example"},
        **{"who committed": "Bartholomew", "folder": "/scratch/pennywhistle/net"},
        **{"wandb run": "zz99yy88", "mailmap": "Cressida"},
    }
    _plant_texts(docs, found)
    _plant_containers(docs)
    _plant_in_run(run_of(project), found)
    (project.path / ".mailmap").write_text("Cressida <cress@hollowell.example>\n")
    digest = sha256((project.path / "LICENSE").read_bytes()).hexdigest()
    (docs / "SUMS").write_text(f"{digest}  ../LICENSE\n")
    git(project, "add", "--all")
    who = ("-c", "user.name=Bartholomew", "-c", f"user.email={found['git address']}")
    done = project.run("git", *who, "commit", "--quiet", "--message", "State")
    assert done.returncode == 0, done.stderr
    found["commit"] = git(project, "rev-parse", "HEAD")
    (docs / "last.txt").write_text(f"cites {found['commit']}\n")
    commit(project)
    return {**found, "archived commit": git(project, "rev-parse", "HEAD")}


def _plant_texts(docs: Path, found: dict[str, str]) -> None:
    texts = {
        "plain.md": f"By ZOË THORNBURY, see {found['repository']}.git and doi:{found['DOI']}\n",
        "escaped.json": json.dumps([found["author"], found["ORCID"], f"\n{found['owner']}\t"]),
        "links.md": f"x%20{found['remote']}%20 and Zo%C3%AB%20Thornbury and Li_Wei, Wei, Li\n",
        "page.html": f"<p>Zo&#235; Thornbury &lt;{found['address']}&gt; {found['copyright']}</p>\n",
        "objects.txt": f"swh:1:dir:{found['tree']} {found['blob']} v1-2-g{found['short commit']}\n",
        "liwei@x.example.txt": f"named by {found['git address']}\n",
        "who.txt": f"{found['who committed']} and {USER.upper()}\n",
    }
    for name, text in texts.items():
        (docs / name).write_text(text, "utf-8")
    (docs / "wide.txt").write_bytes(f"{found['author']} at {HOST}".encode("utf-16"))
    (docs / "big.txt").write_bytes(f"{found['author']}".encode("utf-16-be"))


def _plant_containers(docs: Path) -> None:
    with zipfile.ZipFile(docs / "more.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("thornbury/notes.txt", "penhaligon " * 50)
        packed.writestr("inner.gz", gzip.compress(b"by quaglab " * 50))
    (docs / "log.gz").write_bytes(gzip.compress(f"on {HOST} ".encode() * 50))
    text = b"Author\0\0" + zlib.compress(b"Fennimore")
    (docs / "figure.png").write_bytes(
        PNG + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
        + _chunk(b"zTXt", text) + _chunk(b"IDAT", zlib.compress(b"\0\0")) + _chunk(b"IEND", b"")
    )  # fmt: skip
    head = json.dumps({"__metadata__": {"by": "Thornbury"}}).encode()
    (docs / "weights.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _plant_in_run(run: Path, found: dict[str, str]) -> None:
    """As if it had been made on a machine of the author's, with trackers."""
    context = json.loads((run / "experiment_context.json").read_text())
    context["hardware"]["hostname"] = HOST
    context["git"]["remote_url"] = f"https://{found['repository']}.git"
    text = json.dumps(context, indent=2, sort_keys=True) + "\n"
    (run / "experiment_context.json").write_text(text)
    for name in ("config_used.yaml", "command.txt"):
        text = (run / name).read_text()
        root = str(run.parents[4])
        place = text.split("run_dir")[1].lstrip(":= ").split("/runs/record/")[0]
        assert place.startswith("/"), (place, root)
        (run / name).write_text(text.replace(place, found["folder"]))
    tracked = {"id": found["tracked run"], "settings": {"uri": None}, "sent": {}}
    (run / "tracker.json").write_text(json.dumps(tracked))
    page = f"https://wandb.ai/{found['tracker group']}/x/runs/{found['wandb run']}"
    (run / "run.log").write_text(f"{found['home']}/venv: {page}\n")


def views(data: bytes) -> Iterator[bytes]:
    """All that a reader may see in a file: an own, slow way, to check the kit's by."""
    yield data
    yield data.replace(b"\0", b"")
    yield unquote_to_bytes(data)
    yield data.decode("utf-8", "replace").encode("ascii", "replace")
    with_signs = data.decode("utf-8", "replace")
    yield re.sub(r"\\u([0-9a-f]{4})", lambda unit: chr(int(unit[1], 16)), with_signs).encode()
    if data[:4] == b"PK\3\4":
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for name in packed.namelist():
                yield name.encode()
                yield from views(packed.read(name))
    if data[:2] == b"\x1f\x8b":
        yield from views(gzip.decompress(data))


def traces_of(found: dict[str, str], path: Path) -> list[tuple[str, str]]:
    """Which identities can be read anywhere in the zip file, and in which of its files."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["(the file itself)"] = path.read_bytes()[-20000:] + path.name.encode()
    seen = []
    for name, data in files.items():
        readable = [view.lower() for view in (name.encode(), *views(data))]
        for what, text in found.items():
            if any(text.lower().encode() in view for view in readable):
                seen.append((what, name))
    return seen


def unpack_anonymous(path: Path, folder: Path) -> Project:
    """The project of an archive, unpacked as a reviewer does."""
    subprocess.run(
        [VENV / "bin" / "python", "-m", "zipfile", "-e", path, folder],
        check=True,
        env=clean_environ(),
    )
    (unpacked,) = folder.iterdir()
    return Project(unpacked)
