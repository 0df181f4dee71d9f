"""The tables of secrets: an example of each rule, code that has none, and what may hold none.

Examples are built here, from parts: scanners of repositories are to find no token in this file.
"""

import itertools
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import TEMPLATE, VENV
from repro.core import redaction
from repro.core.errors import UserError
from repro.core.secret_contexts import COMMANDS, CONTEXTS, Rule
from repro.core.secret_tokens import TOKENS, Token
from repro.core.secret_values import refuse_secret_settings, without_secrets
from repro.data.prepared import Folders, Preparation
from repro.publishing.committed import refuse_secrets
from repro.runs.code_files import code_files
from repro.runs.conditions import conditions_on_disk
from repro.runs.configuration import settings_of
from repro.runs.settings import Settings

HEX, LETTERS = "0-9a-f", "A-Za-z0-9"
GITHUB = "gh" + "p_"


def drawn(alphabet: str, length: int) -> str:
    """So many characters of an alphabet, in an order in which digits and letters take turns."""
    all_of_it = [char for char in map(chr, range(33, 127)) if re.match(f"[{alphabet}]", char)]
    mixed = [*all_of_it[::3], *all_of_it[1::3], *all_of_it[2::3]]
    return "".join(itertools.islice(itertools.cycle(mixed), length))


def built(example: str) -> str:
    """An example with {40} and {w43} filled in, as the class Rule says."""
    example = re.sub(r"\{w(\d+)\}", lambda match: drawn(LETTERS, int(match[1])), example)
    return re.sub(r"\{(\d+)\}", lambda match: drawn(HEX, int(match[1])), example)


@pytest.fixture(autouse=True)
def _no_secrets_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if redaction.is_secret_name(name):
            monkeypatch.delenv(name)


# ---------------------------------------------------------------- the rules


@pytest.mark.parametrize("form", ["x = '%s'", "+%s", "run(%s)", "https://host/%s?x=1", "# %s."])
@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token.name)
def test_each_token_of_the_table_leaves_the_text(token: Token, form: str) -> None:
    body = drawn(token.alphabet, token.shortest)
    text = redaction.redact_shapes(f"before\n{form % (token.prefix + body)}\nafter")
    assert body[:10] not in text
    assert body[-10:] not in text
    assert text.count("\n") == 2
    assert redaction.redact_name(f"a/{token.prefix}{body}/b") != f"a/{token.prefix}{body}/b"


@pytest.mark.parametrize("rule", [*CONTEXTS, *COMMANDS], ids=lambda rule: rule.name)
def test_each_example_of_a_context_leaves_the_text(rule: Rule) -> None:
    text = built(rule.example)
    assert any(word in text.lower() for word in rule.words)
    found = re.search(rule.pattern, text)
    assert found, "the rule does not find its own example"
    masked = redaction.redact_shapes(f"+before\n+{text}\n+after")
    assert found["value"] not in masked
    assert "PLANTED" not in masked
    assert masked.count("\n") == text.count("\n") + 2


def test_each_rule_names_its_source_and_no_two_have_one_name() -> None:
    names = [rule.name for rule in (*TOKENS, *CONTEXTS, *COMMANDS)]
    assert len(names) == len(set(names))
    assert all(rule.source for rule in (*TOKENS, *CONTEXTS, *COMMANDS))


PEM = "-----BEGIN {0}PRIVATE KEY{1}-----\n{2}\n-----END {0}PRIVATE KEY{1}-----"
LINES = "\n".join(drawn(rf"{LETTERS}+/", 64)[shift:] + "PLANTED/+" for shift in range(9))
KINDS = [("", ""), ("RSA ", ""), ("EC ", ""), ("OPENSSH ", ""), ("ENCRYPTED ", "")]
KINDS += [("PGP ", " BLOCK"), ("DSA ", "")]


@pytest.mark.parametrize("mark", ["", "+", "-", " ", "+    ", '+  "'])
@pytest.mark.parametrize("kind", KINDS)
def test_a_private_key_leaves_the_text_line_by_line(kind: tuple[str, str], mark: str) -> None:
    end = '\\n",' if '"' in mark else ""
    key = "\n".join(f"{mark}{line}{end}" for line in PEM.format(*kind, LINES).split("\n"))
    masked = redaction.redact_text(f" a\n{key}\n b")
    assert "PLANTED" not in masked
    assert masked.count("\n") == key.count("\n") + 2
    assert (masked.startswith(" a\n"), masked.endswith("\n b")) == (True, True)


def test_a_part_of_a_private_key_leaves_the_text() -> None:
    """A hunk of a patch may begin or end within it, and JSON has it in one line."""
    key = PEM.format("RSA ", "", LINES)
    begin, end = key.split("\n", 5)[:5], key.split("\n")[6:]
    encrypted = ["Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,00", ""]
    for lines in (begin, end, [begin[0], *encrypted, *begin[1:]]):
        assert "PLANTED" not in redaction.redact_text("\n".join(f"+{line}" for line in lines))
    escaped = key.replace("\n", "\\n")
    for text in (f'{{"key": "{escaped}"}}', f"KEY='{escaped}'", f"KEY: {escaped}"):
        assert "PLANTED" not in redaction.redact_text(text)


NEXT_LINE = """password = (\\n    "PLANTED1"\\n)
password = \\\\\\n    'PLANTED1'
"password":\\n    "PLANTED1",
f(user="me",\\n  password=\\n    "PLANTED1")
password:\\n  PLANTED1
password: |\\n  PLANTED1
- api_key: >-\\n    PLANTED1
export HF_TOKEN=\\\\\\nPLANTED1
os.environ["HF_TOKEN"] = (\\n    "PLANTED1"\\n)
password: str = (\\n    "PLANTED1"\\n)"""


@pytest.mark.parametrize("mark", ["", "+"])
@pytest.mark.parametrize("text", NEXT_LINE.split("\n"))
def test_a_secret_on_the_next_line_leaves_the_text(text: str, mark: str) -> None:
    lines = text.replace("\\n", "\n").replace("\\\\", "\\").split("\n")
    text = "\n".join(f"{mark}{line}" for line in lines)
    masked = redaction.redact_text(text)
    assert "PLANTED" not in masked
    assert masked.count("\n") == text.count("\n")


@pytest.mark.parametrize(
    "line",
    [
        "curl --user me:PLANTED1 x",
        "curl -u 'me:PLANTED1 x'",
        "curl -sS \\\n+  -u me:PLANTED1 x",
        'subprocess.run(["curl", "-u", "me:PLANTED1", "x"])',
        "docker login --username me --password PLANTED1",
        'run(["docker", "login", "-p", "PLANTED1"])',
        "podman login -p PLANTED1 quay.io",
        "mysql -h db -u root -pPLANTED1 -e 'select 1'",
        "mysql -u root --password=PLANTED1",
        "sshpass -p PLANTED1 ssh me@host",
        "redis-cli -a PLANTED1",
        "smbclient //host/x -U me%PLANTED1",
        "PGPASSWORD=PLANTED1 psql",
        "huggingface-cli login --token PLANTED1",
        'click(["--api-key", "PLANTED1"])',
        "ENV HF_TOKEN PLANTED1",
        'os.environ.setdefault("HF_TOKEN", "PLANTED1")',
        "setenv WANDB_API_KEY PLANTED1",
        'auth = ("me", "PLANTED1")',
        'session.auth=(\n+    "me",\n+    "PLANTED1",\n+)',
        'HTTPBasicAuth("me", "PLANTED1")',
        'aiohttp.BasicAuth("me", b"PLANTED1")',
        'smtp.login("me@host", "PLANTED1")',
        "//registry.npmjs.org/:_authToken=PLANTED1",
        '"auth": "PLANTED1=="',
        "AccountName=me;AccountKey=PLANTED1==;EndpointSuffix=x",
        "*:*:*:me:PLANTED1",
        "machine x login me password PLANTED1",
        "headers = {'X-Api-Key': 'PLANTED1'}",
        "requests.get(x, headers={'Authorization': 'token PLANTED1'})",
        "X-Amz-Security-Token=PLANTED1&x=1",
    ],
)
def test_a_secret_of_a_command_or_a_call_leaves_the_text(line: str) -> None:
    assert "PLANTED" not in redaction.redact_text(f"+{line}\n")


@pytest.mark.parametrize(
    "line",
    [
        'headers = {"Authorization": f"Bearer {token}"}',
        'curl -u "$USER:$TOKEN" https://host',
        "curl -H 'Authorization: Bearer $TOKEN'",
        "docker run -p 8080:8080 -u 1000:1000 image",
        "docker login -u me --password-stdin",
        "mysql -u root -p",
        "python train.py --token TOKEN",
        'parser.add_argument("--token", help="of the service")',
        'parser.add_argument("--max-tokens", type=int, default=512000)',
        'parser.add_argument("--password", "-p")',
        "revision = '" + drawn(HEX, 40) + "'",
        "wandb @ git+https://github.com/wandb/wandb@" + drawn(HEX, 40),
        "    --hash=sha256:" + drawn(HEX, 64),
        "password:\n    the password of the user\n",
        "if not token:\n    continue\n",
        "token = (\n    tokenizer(x)\n)",
        "train.py:1234:5:error:something",
        "https://user:password@host:5432/study",
        "Signature = inspect.signature(function_with_a_long_name)",
        'begin = "-----BEGIN PRIVATE KEY-----"\nreturn text.find(begin)\n',
        'token="token"',
        "sig=signature_of_the_function_here",
    ],
)
def test_what_only_looks_like_a_secret_stays(line: str) -> None:
    assert redaction.redact_shapes(line) == line  # pytest puts the line into the environment


ORDINARY = ("sklearn", "networkx", "scipy", "matplotlib", "torch/nn", "torch/optim", "torchvision")


def test_no_false_alarm_in_two_hundred_files_of_research_code() -> None:
    (site,) = (VENV / "lib").glob("python3*/site-packages")
    files = [path for name in ORDINARY for path in sorted((site / name).rglob("*.py"))]
    chosen = [path for path in files if 2_000 < path.stat().st_size < 60_000]
    chosen = chosen[:: len(chosen) // 200][:200]
    assert len(chosen) == 200
    for path in chosen:
        text = path.read_text("utf-8")
        assert redaction.redact_text(text) == text, path


def test_the_project_has_no_secret_by_any_rule() -> None:
    """Its own patch, image and archive: the tables must not take themselves for secrets."""
    for name in ("repro", "configs", "slurm"):
        for path in (TEMPLATE / name).rglob("*"):
            if path.is_file() and path.suffix in (".py", ".yaml", ".sh"):
                text = path.read_text("utf-8")
                assert redaction.redact_name(text) == text, path


UNITS = ("a", "token", "token=", 'key="', "://", "eyJ.", "eyJ-", "key: a ", " ", "token:\n", "0")
UNITS += ("wandb", "curl -u ", "M", "auth=(", "\\", "BEGIN RSA PRIVATE KEY", "x-amz-signature=")
UNITS += (
    "a:1234:b:c:",
    "<token>",
    "discord",
    "--token ",
    "mysql -p",
    "password=\\\n",
    "${a}",
    "a.",
)


@pytest.mark.parametrize("unit", UNITS)
def test_a_line_takes_time_in_proportion_to_its_length(unit: str) -> None:
    """A megabyte ten times that of a tenth of it, and not a hundred times."""
    took = []
    for length in (100_000, 1_000_000):
        line = unit * (length // len(unit))
        start = time.process_time()
        redaction.redact_text(line)
        took.append(time.process_time() - start)
    assert took[1] < 40 * max(took[0], 0.005)


def test_the_patterns_are_those_of_older_pythons() -> None:
    """`make image-digest` runs with Python 3.10, too, which knows no possessive quantifiers."""
    source = Path(redaction.__file__).read_text().splitlines()
    code = "\n".join(line for line in source if not line.lstrip().startswith("#"))
    assert not re.findall(r".*[*+?}]\+(?![-\]]).*", code)


# ---------------------------------------------------------------- settings


SECRET = GITHUB + drawn(LETTERS, 36)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": {"api_key": "PLANTED"}}, "model.api_key: named like a secret"),
        ({"password": 12345678}, "password: named like a secret"),
        ({"credentials": {"user": "me"}}, "credentials: named like a secret"),
        ({"list": [{"hf_token": "PLANTED1"}]}, "list: it has a part that is named like a secret"),
        ({"note": "PLANTED-VALUE"}, "note: it holds the value of DB_PASSWORD"),
        ({"note": "x/PLANTED-VALUE/y"}, "note: it holds the value of DB_PASSWORD"),
        ({"a": {"b": ["x", "PLANTED-VALUE"]}}, "a.b: it holds the value of DB_PASSWORD"),
        ({"run_dir": "runs/PLANTED-VALUE"}, "run_dir: it holds the value of DB_PASSWORD"),
        ({"number": 87654321}, "number: it holds the value of PIN_TOKEN"),
        ({"short": "PLANT6"}, "short: it holds the value of SHORT_SECRET"),
        ({"note": SECRET}, "note: its value looks like a token"),
    ],
)
def test_a_setting_that_is_a_secret_is_refused_in_one_line(
    settings: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "PLANTED-VALUE")
    monkeypatch.setenv("PIN_TOKEN", "87654321")
    monkeypatch.setenv("SHORT_SECRET", "PLANT6")
    with pytest.raises(UserError) as error:
        refuse_secret_settings(settings)
    (line,) = error.value.lines
    assert words in line
    assert not re.search(f"PLANT|87654321|{SECRET}", line)


def test_a_masked_setting_of_an_older_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"config": {"model": {"password": "***", "a": 1}}}')
    with pytest.raises(UserError, match="model: password: by its name it was a secret"):
        settings_of(tmp_path)


def test_settings_that_are_no_secrets_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_URL", "https://me:planted-login@host/x")
    monkeypatch.setenv("API_TOKEN", "true")
    refuse_secret_settings(
        {
            "model": {"pad_token": "<pad>", "max_tokens": 512, "use_token": True, "bot_token": 7},
            "api_key": None,
            "password": "",
            "author": "somebody",
            "url": "https://me:planted-login@host/x?token=abcdefgh",  # masked, and evaluated so
            "flag": True,
            "word": "true",
            "names": ["a", 1, None],
        }
    )


# ---------------------------------------------------------------- data, code, image, archive


class Dataset(Settings):
    name: str = "mine"
    url: str


class Config(Settings):
    dataset: Dataset
    data_dir: str = "data"


class Author:
    """A module of data that writes one file, and tells where it is from."""

    def __init__(self, file: str = "a.txt", facts: Any = None) -> None:
        self.file = file
        self.facts = facts

    def prepare(self, settings: Dataset, folders: Folders) -> Any:
        (folders.out / self.file).write_text("1")
        return {"source": settings.url} if self.facts is None else self.facts

    def datasets(self, config: Any, folder: Path, facts: Any) -> Any:
        return {"train": [1]}


def manifest_of(root: Path, url: str, author: Author) -> str:
    config = Config(dataset=Dataset(url=url))
    preparation = Preparation(root, config, author, [])
    preparation.read()
    preparation.read()  # as it was prepared, although it is masked
    return preparation.path.read_text()


def test_a_setting_of_the_data_leaves_no_secret_in_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in (
        "https://me:PLANTED1@host/x",
        "https://host/x?X-Amz-Signature=PLANTED1" + drawn(HEX, 40),
        f"https://host/{GITHUB}PLANTED1{drawn(LETTERS, 30)}",
    ):
        monkeypatch.setenv("DATA_URL", url)
        text = manifest_of(tmp_path, url, Author())
        assert "PLANTED" not in text
        assert '"source": "https://' in text
    assert "my-own-word" not in manifest_of(tmp_path, "my-own-word", Author(facts={}))


def test_other_settings_of_the_data_are_still_seen(tmp_path: Path) -> None:
    first = manifest_of(tmp_path, "https://host/a", Author())
    assert manifest_of(tmp_path, "https://host/b", Author()) != first


def test_facts_with_a_secret_of_the_environment_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "PLANTED-VALUE")
    facts = {"classes": ["a"], "vocabulary": {"password": 7, "token": 8}}
    assert without_secrets({**facts}, "facts") == facts
    with pytest.raises(UserError, match="the value of DB_PASSWORD") as error:
        manifest_of(tmp_path, "x", Author(facts={"how": ["with PLANTED-VALUE"]}))
    assert "PLANTED" not in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_secret_in_the_name_of_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "PLANTED-VALUE")
    for name in (f"{SECRET}.txt", "of-PLANTED-VALUE.txt"):
        with pytest.raises(UserError, match=r"\*\*\*.*name of this file of dataset=mine") as error:
            manifest_of(tmp_path, "x", Author(name))
        assert not re.search(f"PLANTED|{SECRET}", str(error.value))
        code = tmp_path / "experiment" / f"{name}.py"
        code.parent.mkdir(exist_ok=True)
        code.write_text("")
        with pytest.raises(UserError, match="name of this file of code") as error:
            conditions_on_disk(tmp_path)
        assert not re.search(f"PLANTED|{SECRET}", str(error.value))
        code.unlink()


FILES_OF_SECRETS = """.env .env.local .envrc .netrc .pgpass key.pem KEY.PEM server.key x.p12 id_rsa
    id_ed25519 kaggle.json credentials credentials.json credentials.yaml secrets.toml x.kdbx
    .npmrc .pypirc .git-credentials client_secret_1.json"""
NO_FILES_OF_SECRETS = (
    "credentials.py secrets.py keys.py tokens.json .env.example id_rsa.pub.md x.py"
)


def test_files_of_secrets_are_known_by_their_names(tmp_path: Path) -> None:
    for name in FILES_OF_SECRETS.split():
        assert redaction.is_secret_file(f"a/{name}"), name
    for name in NO_FILES_OF_SECRETS.split():
        assert not redaction.is_secret_file(name) or name.startswith("id_rsa"), name
    (tmp_path / "configs").mkdir()
    for name in ("key.pem", "credentials.json", "model.yaml", "credentials.py"):
        (tmp_path / "configs" / name).write_text("")
    assert code_files(tmp_path) == ["configs/credentials.py", "configs/model.yaml"]


FOLDERS = (
    "# Of folders called credentials, Python files alone are code: all else in them stays out.\n"
)


def test_there_is_one_list_of_files_of_secrets() -> None:
    upper = [form.upper() for form in redaction.SECRET_FILES if form.startswith("*.")]
    forms = [*redaction.SECRET_FILES, *upper]
    title = "SECRET_FILES in repro/core/redaction.py\n"
    _, _, ignored = (TEMPLATE / ".gitignore").read_text().partition(title)
    ignored, _, of_folders = ignored.partition(FOLDERS)
    assert ignored.split() == [*forms, "!.env.example"]
    assert of_folders.split() == [
        *("!credentials/", "**/credentials/**", "!**/credentials/**/", "!**/credentials/**/*.py")
    ]
    _, _, ignored = (TEMPLATE / ".dockerignore").read_text().partition(title)
    ignored, _, of_folders = ignored.partition(FOLDERS)
    assert ignored.split() == [f"**/{form}" for form in forms]
    assert of_folders.split() == [  # last: takes in nothing but code, and none of an environment
        f"!{folder}/**/credentials/**/*.py" for folder in ("configs", "experiment")
    ]


def test_python_files_in_a_folder_called_credentials_are_code_and_all_else_is_secret(
    tmp_path: Path,
) -> None:
    """git, the conditions and the patch agree; without a package's code no bits come again."""
    (tmp_path / ".gitignore").write_text((TEMPLATE / ".gitignore").read_text())
    code = ["experiment/credentials/__init__.py", "experiment/credentials/deep/vault.py"]
    secret = [
        *("configs/credentials", "experiment/credentials/aws", "experiment/credentials/notes.md"),
        *("experiment/credentials/deep/key.json", "experiment/x/credentials", "credentials/token"),
        "experiment/credentials/key.pem",
    ]
    for name in (*code, *secret):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert code_files(tmp_path) == code
    assert [name for name in (*code, *secret) if redaction.is_secret_file(name)] == secret
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    listing = ["git", "ls-files", "--others", "--exclude-standard"]
    found = subprocess.check_output(listing, cwd=tmp_path, text=True).split()
    assert found == [".gitignore", *code]


def test_an_archive_of_secrets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "PLANTED-VALUE")
    good = {"a.py": b'password = "an-example"\n', "x.png": bytes(range(256)), "b.py": b"x = 1\n"}
    monkeypatch.setenv("WORD_PASSWORD", "portable")  # a word of the project's own
    refuse_secrets(good | {"repro/portable.py": b"portable"})
    bad = {
        "configs/key.pem": b"x",
        "a.py": f"x = '{SECRET}'".encode(),
        "b.py": b"x = 'PLANTED-VALUE'",
        "c.py": PEM.format("", "", LINES).encode(),
    }
    with pytest.raises(UserError) as error:
        refuse_secrets(good | bad)
    assert [line.partition(" ")[0] for line in error.value.lines] == [
        *("a.py", "b.py", "configs/key.pem", "c.py")
    ]
    assert not re.search(f"PLANTED|{SECRET}", str(error.value))
