"""runs/git.py and runs/context.py on real git: what a run records, and that no secret gets in."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import open_to_all

PROJECT = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}"
sys.path.insert(0, str(PROJECT))

import repro.runs.git  # noqa: E402
from repro.core import redaction  # noqa: E402
from repro.core.hashing import sha256_bytes  # noqa: E402
from repro.environment.machine import (  # noqa: E402
    get_environment_variables,
    get_hardware,
    get_software,
)
from repro.runs.conditions import Conditions, DatasetFacts, Facts, Situation  # noqa: E402
from repro.runs.context import log_experiment_context, read_context  # noqa: E402
from repro.runs.git import GitInfo, get_git_info, uncommitted_changes  # noqa: E402

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _only_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("GIT_", "REPRO_")) or redaction.is_secret_name(name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@example.org")


def git(folder: Path, *arguments: str | bytes) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def write(root: Path, files: dict[str, bytes | str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def commit(root: Path, files: dict[str, bytes | str]) -> str:
    """Make `root` a repository (if it is none) whose commit holds the files; return its hash."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "--quiet", "--initial-branch=main")
    write(root, files)
    git(root, "add", "--all", "--force", ".")
    git(root, "commit", "--quiet", "--message=base")
    return git(root, "rev-parse", "HEAD")


def tree(root: Path) -> dict[str, tuple[bool, bytes]]:
    """Every file of a work tree: whether it is executable, and its bytes (a link: its target)."""
    files = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            files[name] = (False, os.fsencode(os.readlink(path)))
        elif path.is_file() and not name.startswith(".git/"):
            files[name] = (os.access(path, os.X_OK), path.read_bytes())
    return files


def apply(patch: str | None, folder: Path) -> None:
    assert patch is not None
    data = patch.encode("utf-8", "surrogateescape")
    subprocess.run(["git", "apply", "-"], cwd=folder, input=data, check=True, capture_output=True)


# ---------------------------------------------------------------- secrets


SECRET_NAMES = """token HF_TOKEN GITHUB_TOKEN GITHUB_TOKEN_2 accessToken api_key apikey apiKey
    APIKey WANDB_API_KEY AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID private-key tracker.api_key passwd
    password PGPASSWORD passphrase credential credentials client.secret basic_auth KAGGLE_KEY"""
ORDINARY_NAMES = """start_token blank_token image_token sos_token
    num_tokens max_tokens tokenizer token_dim tokens_per_batch pad_token eos_token
    max_token tiktoken author authors authority key sort_key public_key monkey keyboard PWD"""


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_a_secret_name_is_recognised(name: str) -> None:
    assert redaction.is_secret_name(name)


@pytest.mark.parametrize("name", ORDINARY_NAMES.split())
def test_an_ordinary_name_is_no_secret(name: str) -> None:
    assert not redaction.is_secret_name(name)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://user:tok@host.org/o/r.git", "https://host.org/o/r.git"),
        ("https://tok@host.org/o/r", "https://host.org/o/r"),
        ("https://git:tok@host.org/o/r", "https://host.org/o/r"),
        ("https://user:p@ss#w?rd@host.org/o/r", "https://host.org/o/r"),
        ("https://user:pa/ss@host.org/o/r", "https://host.org/o/r"),
        ("git+https://tok@host.org/o/r", "git+https://host.org/o/r"),
        ("https://host.org:8443/o/@r?token=tok#frag", "https://host.org:8443/o/@r"),
        ("ssh://git@host.org:22/o/r", "ssh://git@host.org:22/o/r"),
        ("ssh://user:tok@host.org/o/r", "ssh://host.org/o/r"),
        ("git@host.org:o/r.git", "git@host.org:o/r.git"),
        ("user@host.org:o/r.git", "host.org:o/r.git"),
        ("/srv/git/r.git", "/srv/git/r.git"),
        ("file:///srv/r@2.git", "file:///srv/r@2.git"),
    ],
)
def test_a_url_loses_its_login(url: str, expected: str) -> None:
    assert redaction.redact_url(url) == expected


def test_the_environments_secrets_are_known() -> None:
    environ = {
        "HF_TOKEN": "hf-value-1",
        "DEPLOY_KEY_PASSWORD": "first line of it\nsecond line of it",
        "https_proxy": "http://me:pr%40xy-word@proxy:80",
        "PIP_INDEX_URL": "https://index-token@pypi.example/simple",
        "SHORT_TOKEN": "1234567",
        "EDITOR": "emacs-editor",
        "SSH_URL": "ssh://deployer@host/x",
    }
    assert set(redaction.known_secrets(environ)) == {
        *("hf-value-1", "first line of it", "second line of it"),
        *("pr%40xy-word", "pr@xy-word", "index-token"),
    }


def test_of_two_secrets_the_longer_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "abcdefgh")
    monkeypatch.setenv("B_TOKEN", "abcdefgh-and-more")
    assert redaction.redact_text("x abcdefgh-and-more y") == "x *** y"


@pytest.mark.parametrize(
    "line",
    [
        'api_key = "PLANTED1"',
        "api_key='PLANTED1'",
        'os.environ["HF_TOKEN"] = "PLANTED1"',
        '{"password": "PLANTED1", "user": "me"}',
        'password: str = "PLANTED1"',
        'f(user="me", token="PLANTED1")',
        r'"os.environ[\"HF_TOKEN\"] = \"PLANTED1\"\n"',
        """text = 'api_key = "PLANTED1"' """,
        '+password = "ab\\"PLANTED1"',
        "api_key: PLANTED1",
        "+  - api_key: PLANTED1  # mine",
        "-password: PLANTED-letters-only",
        "password = PLANTED1",
        "export HF_TOKEN=PLANTED1",
        "HF_TOKEN=PLANTED1 python x.py",
        "python x.py --api-key=PLANTED1",
        '"https://host/x?token=PLANTED1&y=1"',
        "https://me:PLANTED1@host/x",
        "https://PLANTED1@host/x",
        "ghp_PLANTED1abcdefghijklmno",
        "github_pat_PLANTED1abcdefghijklmno",
        "glpat-PLANTED1abcdefghijklmno",
        "hf_PLANTED1abcdefghijklmno",
        "sk-proj-PLANTED1-abcdefghijklmno",
        "xoxb-PLANTED1-abcdefghij",
        "eyJhbGciOiJI.eyPLANTED1.abcdefghij",
        "curl -H 'Authorization: Bearer PLANTED1'",
    ],
)
def test_a_secret_leaves_the_text(line: str) -> None:
    assert "PLANTED" not in redaction.redact_text(f"before\n{line}\nafter")
    assert redaction.redact_text(f"before\n{line}\nafter").count("\n") == 2


def test_an_aws_key_leaves_the_text() -> None:
    assert redaction.redact_text("id AKIAIOSFODNN7EXAMPLE.") == "id ***."


@pytest.mark.parametrize(
    "line",
    [
        "token = tokenizer(x)",
        "token = tokenizer",
        "password: str",
        "password: SecretStr",
        "token: torch.Tensor",
        "def f(token=tokenizer, size=3):",
        "if not token: continue",
        "secret = settings.secret",
        "num_tokens: 123456",
        "max_tokens=4096000",
        'tokenizer = "bert-base-uncased"',
        "author: somebody",
        "git@github.com:org/project",
        "https://github.com/org/project",
        'f"https://{user}:{token}@host"',
        "secretstorage==3.3.3456",
        "sk-text-repr-fallback-element",
    ],
)
def test_code_without_secrets_survives(line: str) -> None:
    assert redaction.redact_text(line) == line


def test_long_lines_take_no_minutes() -> None:
    for unit in ("a", "token", "token=", 'key="', "://", "eyJ.", "key: a ", " "):
        redaction.redact_text(unit * (300_000 // len(unit)))


def test_a_mapping_is_copied_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "planted-value")
    config = {
        "tracker": {"api_key": "x", "password": None, "use_token": True, "pad_token": "<pad>"},
        "credentials": {"user": "me", "pin": 1},
        "paths": [Path("data/planted-value"), ("https://me:pw@host/x", 3, 0.5)],
        "max_tokens": 512,
        "bot_token": 7,
        "password": 12345678,
    }
    before = repr(config)
    assert redaction.redact_mapping(config) == {
        "tracker": {"api_key": "***", "password": None, "use_token": True, "pad_token": "<pad>"},
        "credentials": "***",
        "paths": ["data/***", ["https://***@host/x", 3, 0.5]],
        "max_tokens": 512,
        "bot_token": 7,  # a small number is a setting
        "password": "***",
    }
    assert repr(config) == before


def test_a_command_keeps_its_form_and_loses_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "planted-value")
    argv = ["python", "-m", "experiment.train", "seed=1", "name=a b", "max_tokens=5"]
    assert shlex.split(redaction.redact_command(argv)) == argv
    secret = ["+t.api_key=a", "--password=b,c d", "t={token: e, n: 1}", "x=planted-value"]
    shown = shlex.split(redaction.redact_command(secret))
    assert shown == ["+t.api_key=***", "--password=***", "t=***", "x=***"]


# ---------------------------------------------------------------- git


def test_a_clean_commit(tmp_path: Path) -> None:
    head = commit(tmp_path, {"a.py": "1\n"})
    git(tmp_path, "remote", "add", "origin", "https://me:PLANTED@host.org/o/r.git?x=1")
    assert get_git_info(tmp_path) == GitInfo(
        commit_hash=head,
        branch="main",
        is_dirty=False,
        diff_stat="",
        remote_url="https://host.org/o/r.git",
        untracked=0,
        source="git",
        note=None,
    )
    assert uncommitted_changes(tmp_path) is None


@pytest.mark.parametrize("change", ["staged", "unstaged", "untracked"])
def test_every_kind_of_change_is_dirty(tmp_path: Path, change: str) -> None:
    commit(tmp_path, {"ü.py": "1\n"})
    write(tmp_path, {"b ü\n.py" if change == "untracked" else "ü.py": "2\n"})
    if change == "staged":
        git(tmp_path, "add", "ü.py")
    info = get_git_info(tmp_path)
    assert info.is_dirty is True
    assert info.untracked == (change == "untracked")
    assert ("ü.py | 2 +-" in (info.diff_stat or "")) == (change != "untracked")


def test_ignored_files_are_not_dirty(tmp_path: Path) -> None:
    commit(tmp_path, {".gitignore": "runs/\n"})
    write(tmp_path, {"runs/x": "1"})
    assert get_git_info(tmp_path).is_dirty is False
    assert uncommitted_changes(tmp_path) is None


def test_no_commit_yet(tmp_path: Path) -> None:
    commit(tmp_path / "empty", {"x": ""})
    root = tmp_path / "new"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    write(root, {"staged.py": "1\n", "untracked.py": "2\n"})
    git(root, "add", "staged.py")
    info = get_git_info(root)
    assert (info.commit_hash, info.branch, info.source) == (None, "main", "git")
    assert (info.is_dirty, info.untracked) == (True, 1)
    assert "no commit yet" in (info.note or "")
    apply(uncommitted_changes(root), tmp_path / "empty")
    assert tree(tmp_path / "empty").items() > tree(root).items()


def test_a_detached_head(tmp_path: Path) -> None:
    head = commit(tmp_path, {"a.py": "1\n"})
    git(tmp_path, "checkout", "--quiet", "--detach")
    info = get_git_info(tmp_path)
    assert (info.commit_hash, info.branch, info.is_dirty) == (head, None, False)
    assert "detached HEAD" in (info.note or "")


def assert_no_git(root: Path, note: str) -> None:
    info = get_git_info(root)
    assert re.search(note, info.note or "")
    assert info == GitInfo(source="none", note=info.note)
    assert uncommitted_changes(root) is None


def test_no_git_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(tmp_path, {"a.py": "1\n"})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_no_git(tmp_path, "not installed")


def test_no_repository(tmp_path: Path) -> None:
    assert_no_git(tmp_path, "not a git repository")


def test_a_repository_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(tmp_path, {"a.py": "1\n"})
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for its tests
    assert_no_git(tmp_path, "dubious ownership.*safe.directory")


@pytest.mark.parametrize("ignored", [True, False])
def test_a_foreign_repository_around_the_project_is_not_ours(tmp_path: Path, ignored: bool) -> None:
    commit(tmp_path, {"a.py": "1\n", ".gitignore": "project\n" if ignored else ""})
    write(tmp_path, {"project/pyproject.toml": "", "a.py": "2\n"})
    assert_no_git(tmp_path / "project", "around the project")


def test_in_a_larger_repository_only_the_project_counts(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"p/pyproject.toml": "", "p/a.py": "1\n", "other.py": "1\n"}
    head = commit(tmp_path / "mono", files)
    git(tmp_path, "clone", "--quiet", "mono", "clone")
    root = tmp_path / "mono" / "p"
    git(root, "config", "diff.relative", "true")
    write(tmp_path / "mono", {"other.py": "2\n", "new.py": "3\n"})
    info = get_git_info(root)
    assert (info.commit_hash, info.is_dirty, info.diff_stat) == (head, False, "")
    assert uncommitted_changes(root) is None
    write(root, {"a.py": "2\n", "b.py": "3\n", ".env": "X"})
    apply(uncommitted_changes(root), tmp_path / "clone")
    (root / ".env").unlink()
    assert tree(tmp_path / "clone" / "p") == tree(root)
    assert tree(tmp_path / "clone")["other.py"] == (False, b"1\n")
    assert "new.py" not in tree(tmp_path / "clone")


def test_a_source_archive_knows_its_commit(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        ".git_archival.txt": "commit: $Format:%H$\n",
        ".gitattributes": ".git_archival.txt export-subst\n",
    }
    head = commit(tmp_path / "repository", files)
    root = tmp_path / "archive"
    root.mkdir()
    git(tmp_path / "repository", "archive", f"--output={tmp_path}/a.tar", "HEAD")
    subprocess.run(["tar", "-xf", tmp_path / "a.tar", "-C", root], check=True)
    info = get_git_info(root)
    assert (info.source, info.commit_hash, info.is_dirty) == ("archive", head, None)
    assert "not a git repository" in (info.note or "")
    write(root, files)
    assert_no_git(root, "not a git repository")


@pytest.mark.parametrize(("dirty", "expected"), [("true", True), ("false", False), ("", None)])
def test_an_image_knows_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dirty: str, expected: bool | None
) -> None:
    monkeypatch.setenv("REPRO_GIT_COMMIT", COMMIT)
    monkeypatch.setenv("REPRO_GIT_DIRTY", dirty)
    info = get_git_info(tmp_path)
    assert (info.source, info.commit_hash) == ("environment", COMMIT)
    assert info.is_dirty is expected
    monkeypatch.setenv("REPRO_GIT_COMMIT", "unknown")
    assert_no_git(tmp_path, "not a git repository")


def test_unknown_is_not_clean(tmp_path: Path) -> None:
    head = commit(tmp_path, {"a.py": "1\n"})
    (tmp_path / ".git" / "index").write_bytes(b"broken")
    info = get_git_info(tmp_path)
    assert (info.commit_hash, info.is_dirty, info.untracked) == (head, None, None)
    assert "index" in (info.note or "")
    assert "could not be read" in (uncommitted_changes(tmp_path) or "")


# ---------------------------------------------------------------- the patch

HOSTILE_SETTINGS = """diff.noprefix=true diff.mnemonicPrefix=true diff.external=false
    diff.context=0 color.ui=always diff.submodule=log diff.renames=copies diff.t.textconv=false
    core.fsmonitor=.git/hooks/post-index-change status.showUntrackedFiles=no status.short=true"""
LATIN = "caf\xe9\r\nna\xefve\n".encode("latin-1")
BINARY = bytes(range(256)) * 20


def change_everything(root: Path) -> None:
    git(root, "rm", "--quiet", "deleted.py")
    git(root, "mv", "old name.py", "new name.py")
    (root / "run.sh").chmod(0o755)
    (root / "link").unlink()
    (root / "link").symlink_to("b.bin")
    write(root, {"staged.py": "2\n", "b.bin": BINARY[::-1], "latin.txt": LATIN + LATIN})
    git(root, "add", "staged.py", "b.bin")
    write(
        root,
        {
            "staged.py": "3\n",
            "no newline": "x",
            "empty": "",
            "new.bin": BINARY + b"\0" * 5000,
            "new latin.txt": LATIN,
            "folder/ü \n\t\"'\\ [a]*.py": "odd\n",
            ":(top)x": "magic\n",
            "-": "dash\n",
        },
    )
    with open(os.fsencode(root) + b"/bytes \xff", "wb") as file:
        file.write(b"1\n")
    write(root, {"tool": "#!/bin/sh\n"})
    (root / "tool").chmod(0o755)
    (root / "new link").symlink_to("nowhere")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A repository and a clean clone of it."""
    root = tmp_path / "work"
    root.mkdir()
    (root / "link").symlink_to("staged.py")
    names = ("deleted.py", "old name.py", "run.sh", "staged.py", "config.yaml")
    files: dict[str, bytes | str] = {name: f"{name}\n" * 9 for name in names}
    commit(root, files | {"b.bin": BINARY, "latin.txt": LATIN})
    git(tmp_path, "clone", "--quiet", "work", "clone")
    return root, tmp_path / "clone"


def test_the_patch_gives_back_the_same_tree(pair: tuple[Path, Path]) -> None:
    root, clone = pair
    change_everything(root)
    status = git(root, "status", "--porcelain")
    index = (root / ".git" / "index").read_bytes()
    os.utime(root / "config.yaml", (1, 1))  # git would refresh its index, if it were the user's
    apply(uncommitted_changes(root), clone)
    assert tree(clone) == tree(root)
    assert (root / ".git" / "index").read_bytes() == index
    assert git(root, "status", "--porcelain") == status


@pytest.mark.parametrize("place", ["plain", 'a:b "c"'])
def test_a_read_only_repository_loses_no_part_of_the_patch(tmp_path: Path, place: str) -> None:
    """To mark an untracked file in a copy of the index, git writes an (empty) object, too."""
    root, clone = tmp_path / place, tmp_path / "clone"
    commit(root, {"a.py": "1\n"})
    git(tmp_path, "clone", "--quiet", str(root), str(clone))
    write(root, {"a.py": "2\n", "new.py": "3\n"})
    shutil.copytree(root, tmp_path / "writable")
    expected = uncommitted_changes(tmp_path / "writable")
    places = [root, *root.rglob("*")]
    user = os.geteuid()
    for place in places:
        if user == 0 and not place.is_symlink():  # root may write everywhere
            os.chown(place, 65534, 65534)
    open_to_all(root.parent)
    closed = [p for p in (root / ".git", *(root / ".git").rglob("*")) if p.is_dir()]
    for folder in closed:
        folder.chmod(0o555)
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            (root / ".git" / "x").touch()
        patch = uncommitted_changes(root)
    finally:
        os.seteuid(user)
        for folder in closed:
            folder.chmod(0o755)
    assert patch == expected
    apply(patch, clone)
    assert tree(clone) == tree(root)


def test_untracked_files_that_git_cannot_read_leave_the_tracked_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(tmp_path, {"a.py": "1\n"})
    write(tmp_path, {"a.py": "2\n", "new.py": "3\n", "more.py": "4\n"})
    asked = repro.runs.git._git

    def failing(root: Path, *arguments: str, **more: str) -> str:
        if arguments[0] == "add":
            raise OSError("git add: No space left on device")
        return asked(root, *arguments, **more)

    monkeypatch.setattr(repro.runs.git, "_git", failing)
    head, _, patch = (uncommitted_changes(tmp_path) or "").partition("\n")
    assert head == "# left out: 2 untracked files: git add: No space left on device"
    assert "+2" in patch
    assert "new.py" not in patch


def test_the_users_git_settings_change_nothing(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, clone = pair
    change_everything(root)
    expected = get_git_info(root), uncommitted_changes(root)
    for setting in HOSTILE_SETTINGS.split():
        git(root, "config", *setting.split("=", 1))
    (root / ".git" / "info" / "attributes").write_text("*.py diff=t\n")
    hook = root / ".git" / "hooks" / "post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(clone))}/ran\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_DIR", str(clone / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(clone / ".git" / "index"))
    assert (get_git_info(root), uncommitted_changes(root)) == expected
    assert not (clone / "ran").exists()


def test_large_and_secret_files_are_left_out_by_name(pair: tuple[Path, Path]) -> None:
    root, clone = pair
    large = b"0123456789abcdef" * 2**16 + b"!"
    write(
        root, {"a/.env.local": "PLANTED", "ID_RSA": "PLANTED", "x.pem": "PLANTED", "small": "1\n"}
    )
    write(root, {"large.txt": large, "limit.txt": large[:-1]})
    write(root, {"odd\n.key": "PLANTED"})
    (root / "link to large").symlink_to("large.txt")
    commit(root / "nested", {"x": ""})
    patch = uncommitted_changes(root)
    assert patch is not None
    assert "PLANTED" not in patch
    head = patch[: patch.index("diff --git")].splitlines()
    assert sorted(head) == [
        "# left out: 'odd\\n.key' (secret by its name)",
        "# left out: ID_RSA (secret by its name)",
        "# left out: a/.env.local (secret by its name)",
        f"# left out: large.txt ({len(large)} bytes, sha256 {sha256_bytes(large)})",
        "# left out: nested/ (a repository of its own)",
        "# left out: x.pem (secret by its name)",
    ]
    before = tree(clone).keys()
    apply(patch, clone)
    assert tree(clone).keys() - before == {"small", "limit.txt", "link to large"}


def test_a_tracked_secret_file_is_left_out(tmp_path: Path) -> None:
    commit(tmp_path, {".env": "old\n", "gone.key": "old\n"})
    write(tmp_path, {".env": "PLANTED\n"})
    (tmp_path / "gone.key").unlink()
    patch = uncommitted_changes(tmp_path)
    expected = {f"# left out: {name} (secret by its name)" for name in (".env", "gone.key")}
    assert patch is not None
    assert set(patch.splitlines()) == expected


def test_a_redacted_patch_says_so(pair: tuple[Path, Path]) -> None:
    root, clone = pair
    write(root, {"config.yaml": "api_key: PLANTED1\npassword: 'PLANTED2'\n# ***\n"})
    patch = uncommitted_changes(root)
    assert patch is not None
    assert patch.startswith("# 2 values redacted: the patch will not apply exactly\ndiff --git")
    apply(patch, clone)
    assert (clone / "config.yaml").read_text() == "api_key: ***\npassword: '***'\n# ***\n"


def test_a_binary_file_with_a_secret_is_left_out(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = pair
    monkeypatch.setenv("HF_TOKEN", "planted-value")
    write(root, {"b.bin": b"\0planted-value", "new.bin": "planted-value".encode("utf-16")})
    assert set((uncommitted_changes(root) or "").splitlines()) == {
        "# left out: b.bin (binary that holds a secret)",
        "# left out: new.bin (binary that holds a secret)",
    }


def test_binary_hunks_are_never_redacted(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, clone = pair
    write(root, {"new.bin": BINARY})
    hunk = re.search(r"(?m)^z(.{12})", uncommitted_changes(root) or "")
    assert hunk
    monkeypatch.setenv("HF_TOKEN", hunk[1])
    apply(uncommitted_changes(root), clone)
    assert (clone / "new.bin").read_bytes() == BINARY


# ---------------------------------------------------------------- the machine and the whole


def test_hardware_and_software_are_named() -> None:
    hardware, software = get_hardware(), get_software()
    assert hardware.cpu_model
    assert hardware.logical_cores == os.cpu_count()
    assert hardware.memory_gib > 0.1
    assert hardware.cpu_features == sorted(set(hardware.cpu_features))
    if " avx2 " in Path("/proc/cpuinfo").read_text():
        assert {"avx2", "fma"} <= set(hardware.cpu_features)
    assert software.python == sys.version.split()[0]
    assert software.packages["pytest"] == pytest.__version__
    assert (software.torch or "").startswith(software.packages.get("torch", ""))
    assert all(re.fullmatch("[a-z0-9-]+", name) for name in software.packages)


def test_only_listed_variables_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "42")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JWT", "PLANTED")
    monkeypatch.setenv("PYTHONHASHSEED_TOKEN", "PLANTED")
    recorded = get_environment_variables()
    assert recorded.items() >= {"PYTHONHASHSEED": "42", "SLURM_JOB_ID": "7"}.items()
    assert "PLANTED" not in repr(recorded)


def test_no_planted_secret_gets_into_a_run(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = pair
    folder = root.parent / "run"
    monkeypatch.setenv("WANDB_API_KEY", "planted-environment")
    monkeypatch.setenv("https_proxy", "http://me:planted-proxy@proxy:80")
    git(root, "remote", "add", "origin", "https://planted-remote@host.org/o/r")
    git(root, "checkout", "--quiet", "-b", "planted-environment")
    write(root, {".env": "X=planted-file", "config.yaml": "api_key: planted-yaml\n"})
    write(root, {"new.py": 'HF_TOKEN = "planted-python"\nx = "planted-proxy"\n'})
    extra = {
        "config": {"tracker": {"api_key": "planted-config"}, "url": "http://a:planted-url@b"},
        "lock": ["planted-environment", Path("planted-proxy")],
    }
    context = log_experiment_context(folder, root, extra)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files.keys() == {"experiment_context.json", "uncommitted_changes.diff"}
    for name, content in files.items():
        assert re.findall(rb"planted-\w+", content) == [], name
    assert "planted-" not in repr(context)
    assert b"# 3 values redacted" in files["uncommitted_changes.diff"]
    assert b"# left out: .env (" in files["uncommitted_changes.diff"]


def test_the_context_is_written_sorted_and_whole(pair: tuple[Path, Path]) -> None:
    root, _ = pair
    folder = root.parent / "run"
    context = log_experiment_context(folder, root, {"seed": 0, "data": {"b": 1, "a": 2}})
    text = (folder / "experiment_context.json").read_text()
    assert json.loads(text) == context
    assert text == json.dumps(context, indent=2, sort_keys=True) + "\n"
    assert context.keys() == {"git", "software", "hardware", "environment", "seed", "data"}
    assert context["hardware"]["hostname"] == os.uname().nodename
    assert not (folder / "uncommitted_changes.diff").exists()
    change_everything(root)
    log_experiment_context(folder, root, {})
    text = (folder / "uncommitted_changes.diff").read_bytes().decode("utf-8", "surrogateescape")
    assert text == uncommitted_changes(root)


def facts() -> Facts:
    conditions = Conditions(
        code={"experiment/train.py": "ab"},
        config={"training": {"epochs": 2, "gradient_clip": None}, "seeds": {}},
        data="cd",
        environment={"MKL_CBWR": "COMPATIBLE"},
        lock="ef",
        packages={},
    )
    dataset = DatasetFacts(dataset="digits", raw_sha256=["01"])
    situation = Situation(conditions, "cpu x86-64-v3 portable", dataset)
    return Facts(situation, flags={"cudnn.benchmark": False}, seed=0, seeds={"training": 7})


def test_what_is_written_of_a_run_is_read_again(pair: tuple[Path, Path]) -> None:
    root, _ = pair
    folder = root.parent / "run"
    assert read_context(folder) is None
    log_experiment_context(folder, root, facts().as_json())
    context = read_context(folder)
    assert context is not None
    assert context.git == get_git_info(root)
    assert context.hardware == get_hardware()
    assert context.software == replace(get_software(), not_as_locked=[])
    assert context.environment == get_environment_variables()
    assert context.hostname == os.uname().nodename
    assert context.conditions == facts().situation.conditions
    assert context.dataset == facts().situation.dataset
    assert context.hardware_class == "cpu x86-64-v3 portable"
    assert (context.flags, context.seed, context.seeds) == (
        {"cudnn.benchmark": False},
        0,
        {"training": 7},
    )


def test_a_context_of_another_version_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "experiment_context.json"
    path.write_text('{"git": {"commit_hash": "ab", "new": 1}, "hardware": {"gpus": ["A"]}, "x": 1}')
    context = read_context(tmp_path)
    assert context is not None
    assert context.git == GitInfo(commit_hash="ab")
    assert (context.hardware.gpus, context.hardware.gpu_driver) == (["A"], None)
    assert context.software.packages == {}
    assert context.conditions.code == {}
    assert context.seed is None
    for damaged in ("{", "[]", '{"git": {"commit_hash": 1}}', '{"git": 1}'):
        path.write_text(damaged)
        assert read_context(tmp_path) is None


def test_an_extra_section_overwrites_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="git"):
        log_experiment_context(tmp_path, tmp_path, {"git": {}})
