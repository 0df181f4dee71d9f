"""Keep secrets out of what is written.

Recognises a secret by its name, its shape (secret_tokens.py, secret_contexts.py), as a value of the
environment or in a URL, and files of secrets by their names. Does not see into compressed data, nor
a secret that looks like any other word.
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any
from urllib.parse import unquote

from repro.core.secret_masks import MASK as MASK
from repro.core.secret_masks import is_placeholder, mask_contexts, mask_tokens

SHORTEST = 8  # characters of a secret that is looked for in texts: shorter ones are words
# Patterns are compiled when they are first used: a message about a typo needs none of them. Pythons
# before 3.11, with which `make image-digest` runs, know no possessive quantifiers (`++`).

# Searched in a name's words, lower case, joined by "_". `token` counts as the last word alone, and
# not after a word of language modelling: HF_TOKEN does; max_tokens, pad_token, tokenizer do not.
_SECRET_NAME = (
    r"secret|passw(or)?d|passphrase|credential|(^|_)authorization(_|$)|(^|_)auth$"
    r"|(api|access|auth|private|account|storage|encryption|kaggle)_?(key|token)s?(_|$)"
    r"|(wandb|openai|anthropic|huggingface|azure|groq|nvidia|cohere|subscription|signing|ssh)_?keys?$"
    r"|(^|_)(?<!(?:pad|eos|bos|sos|cls|sep|unk|per|max|num|end)_)(?<!(?:mask|stop|text|word)_)"
    r"(?<!(?:start|begin|blank|image|class|audio|query|patch|first)_)(?<!special_)token$"
)
# Keys that may be secret names, so that a match of any other key hides none: text = 'api_key="..."'
_KEY = r"(?P<key>[\w.-]{0,60}(?i:secret|passw|passph|credential|auth|token|key)[\w.-]{0,60})"
_BLANKS = r"[ \t]*(?![ \t])"  # all that are there, for a row of them is looked at once
_NEXT = r"[ \t]*\r?\n[+\- ]?[ \t]*"  # the end of a line, and what a patch puts before the next one
_LITERALS = (  # the values go, if is_secret_name(key)
    # key = "value", "key": "value", key: str = "value"; in a notebook's JSON quotes follow a "\"
    rf"""(?<![\w.-]){_KEY}\\?["']?\]?( ?: ?[\w.|\[\] ]{{1,40}}?)?[ \t]*[:=][=>]?[ \t]*"""
    r"""[bfruBFRU]{0,2}(?P<quote>\\?["'])(?P<value>((?!(?P=quote))(\\.|[^\\\n])){6,})""",
    # key: value of YAML, key = value of INI; a type or a variable in that place is code
    rf"""(?m)^[+\- ]?[ \t]*(- )?["']?{_KEY}["']?(:[ \t]+(?!([a-z]+\.)*(Tensor|Secret[A-Z]\w*"""
    r"""|string|object|Callable)[ \t\r]*$)|[ \t]+=[ \t]*(?![A-Za-z_.]+[ \t\r]*$))"""
    r"""(?P<value>[^\s"'()\[\]{},;<>$]{6,})(?=[ \t\r]*$|[ \t]+#)""",
    # KEY=value of a shell or of a URL's query; what ends otherwise is passed over as a whole
    rf"""(?<![\w.-]){_KEY}=(?![$=])"""
    r"""(?P<value>[^\s"'()\[\]{},;<>&\\]{6,})(?:(?=[\s"'&\\;]|$)|(?P<other_end>))""",
    # The value on the next line: a text in quotes, or a word alone
    rf"""(?<![\w.-]){_KEY}\\?["']?\]?( ?: ?\w{{1,20}})?[ \t]*[:=]{_BLANKS}[(\\|>+-]{{0,3}}{_NEXT}"""
    r"""[bfruBFRU]{0,2}(?P<quote>["'])(?P<value>((?!(?P=quote))(\\.|[^\\\n])){6,})""",
    rf"""(?m)^[+\- ]?[ \t]*(- )?["']?{_KEY}["']?:{_BLANKS}[|>]?[+-]?{_NEXT}"""
    r"""(?P<value>[^\s"'()\[\]{},;<>$#:=@-][^\s"'()\[\]{},;<>:]{5,})(?=[ \t\r]*$)""",
    rf"""(?<![\w.-]){_KEY}=\\{_NEXT}(?P<value>[^\s"'()\[\]{{}},;<>$=-][^\s"'()\[\]{{}},;<>]{{5,}})""",
    # An option of a command, also in a list of texts: --password VALUE, "--token", "VALUE"
    rf"""(?<![\w-])--{_KEY}(["'],[ \t]{{0,4}}["']|[ \t]{{1,4}}["']?)"""
    r"""(?P<value>[^\s"'$<{}\[\],()\\-][^\s"',()\[\]{}\\]{5,})""",
    # A variable's name before its value: setenv, ENV of a Dockerfile, os.environ.setdefault
    rf"""(?m)^[+\- ]?[ \t]*(?:setenv|ENV|setx)[ \t]+{_KEY}[ \t]+["']?(?P<value>[^\s"'$]{{6,}})""",
    rf"""(?:setdefault|putenv|setenv|getenv|environ\.get|add_header)\([ \t]*["']{_KEY}["'],[ \t]*"""
    r"""(?P<quote>["'])(?P<value>((?!(?P=quote))(\\.|[^\\\n])){6,})""",
)
_NAMES = ("secret", "passw", "passph", "credential", "auth", "token", "key")  # one is in each key

# Files that hold secrets: they stay out of patches, images, archives and the conditions. The same
# patterns stand in .dockerignore and .gitignore (test_there_is_one_list_of_files_of_secrets).
SECRET_FILES = (
    *(".env", ".env.*", ".envrc", ".netrc", "_netrc", ".pgpass", ".my.cnf", ".pypirc", ".npmrc"),
    *(".git-credentials", ".htpasswd", ".dockercfg", ".s3cfg", ".boto"),
    *(
        "*.pem",
        "*.key",
        "*.p12",
        "*.pfx",
        "*.p8",
        "*.ppk",
        "*.jks",
        "*.keystore",
        "*.kdbx",
        "*.ovpn",
    ),
    *("id_rsa", "id_rsa.*", "id_dsa", "id_dsa.*", "id_ecdsa", "id_ecdsa.*"),
    *("id_ed25519", "id_ed25519.*", "kaggle.json", "credentials", "credentials.json"),
    *(
        "credentials.y*ml",
        "credentials.toml",
        "credentials.ini",
        "credentials.csv",
        "credentials.txt",
    ),
    *(
        "credentials.db",
        "secrets.json",
        "secrets.y*ml",
        "secrets.toml",
        "secrets.ini",
        "secrets.txt",
    ),
    *("client_secret*.json", "service_account*.json", "service-account*.json"),
)


# A folder of this name may be a package, and bits depend on its Python files: those are code. All
# else in it is taken for secrets, whatever it is called.
SECRET_FOLDER = "credentials"
CODE_THERE = "*.py"


def is_secret_file(name: str) -> bool:
    """Whether a file holds secrets by its name, in a project or alone; .env.example holds none."""
    *folders, last = name.lower().split("/")
    if SECRET_FOLDER in folders and not fnmatchcase(last, CODE_THERE):
        return True
    return last != ".env.example" and any(fnmatchcase(last, form) for form in SECRET_FILES)


def is_secret_name(name: str) -> bool:
    """Whether a value under this name is a secret: apiKey, HF_TOKEN; not max_tokens, not author."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return re.search(_SECRET_NAME, "_".join(words).lower()) is not None


def redact_url(url: str) -> str:
    """Return the URL without user, password, token, query and fragment; ssh keeps `git@`."""
    # The user's part ends at the host's last "@", or, where a password holds "/", at the last "@".
    # That there is one is looked at first: a row of ":" would take long.
    match = re.match(
        r"((?:[^/@]*:)?//)?([^/]*@|(?=[^@]*@)[^/@]*:(?!\d*(?:/|$))(?s:.*)@)?([^?#]*)", url.strip()
    )
    scheme, login, rest = match.groups("") if match else ("", "", "")
    ssh_user = "git@" if login.startswith(("git@", "git:")) and "http" not in scheme else ""
    return scheme + ssh_user + rest


def secret_variables(
    environ: Mapping[str, str] = os.environ, shortest: int = SHORTEST
) -> dict[str, str]:
    """Return each secret of the environment, the longest first, with its variable's name.

    Secrets are values of variables with secret names, and logins in URLs.
    """
    found: dict[str, str] = {}
    for name, value in environ.items():
        values: set[str] = set()
        if is_secret_name(name):  # by line: in a diff every line of a key has a "+" before it
            values.update(line.strip() for line in value.splitlines())
        for user, password in re.findall(r"(?<!ssh)://([^\s/@:]*)(?::([^\s/]*))?@", value):
            secret = user if password in ("", "x-oauth-basic") else password
            values.update((secret, unquote(secret)))
        found.update(dict.fromkeys(values, name))
    # Longest first: a secret inside another one must not leave the rest of it.
    long = [value for value in found if len(value) >= shortest]
    return {value: found[value] for value in sorted(long, key=lambda value: (-len(value), value))}


def known_secrets(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the environment's secrets of SHORTEST characters or more, the longest first."""
    return tuple(secret_variables(environ))


def redact_text(text: str) -> str:
    """Replace every recognised secret in the text by ***; lines stay lines."""
    return _redact(text, known_secrets())


def _redact(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    return redact_shapes(text)


def redact_shapes(text: str) -> str:
    """Replace what looks like a secret wherever it stands: the same result on every machine.

    `redact_text` also knows the secrets of this machine's environment.
    """
    text = mask_contexts(mask_tokens(text))
    lower = text.lower()
    if any(name in lower for name in _NAMES):
        for literal in _LITERALS:
            text = re.sub(literal, _mask_literal, text)
    return text


def _mask_literal(match: re.Match[str]) -> str:
    """Mask the value of a key that names a secret, unless it only repeats the key."""
    if match.groupdict().get("other_end") is not None:
        return match[0]
    key, value = match["key"], match["value"]
    letters = re.sub(r"[\W_]", "", key).lower()
    repeats = re.sub(r"[\W_]", "", value).lower() == letters
    if repeats or is_placeholder(value) or not is_secret_name(key):
        return match[0]
    before = match[0][: match.start("value") - match.start()]
    return before + MASK + match[0][match.end("value") - match.start() :]


def redact_name(name: str) -> str:
    """Replace each secret in the name of a file or a folder by ***: tokens, and the environment's.

    Names of settings tell nothing in it: token=5.txt stays. Neither does a secret that is one word
    of lower-case letters: with the password "portable" repro/tasks/portable.py is no secret.
    """
    for secret in known_secrets():
        if not re.fullmatch("[a-z]+", secret):
            name = name.replace(secret, MASK)
    return mask_tokens(name)


def redact_mapping(value: Any, clean: Callable[[str], str] | None = None) -> Any:
    """Return a deep copy in plain JSON types with secrets as ***; None and switches hide nothing.

    Texts are cleaned as by `redact_text`; `clean=redact_shapes` is for what is compared or read
    back.
    """
    if clean is None:
        clean = partial(_redact, secrets=known_secrets())  # once: the environment is large
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [redact_mapping(item, clean) for item in value]
    if not isinstance(value, Mapping):
        return clean(str(value))
    copy = {clean(str(key)): redact_mapping(item, clean) for key, item in value.items()}
    hidden = {
        name for name, item in copy.items() if is_secret_name(name) and not is_setting(name, item)
    }
    return copy | dict.fromkeys(hidden, MASK)


def is_setting(name: str, value: Any) -> bool:
    """Whether a value is no secret: none, a switch, a token of a vocabulary (bot_token: 7)."""
    if value is None or value == "" or isinstance(value, bool):
        return True
    is_short = isinstance(value, int | str) and len(str(value)) < 8
    return is_short and name.lower().endswith("token")


def redact_command(argv: list[str]) -> str:
    """Return the command as one shell-quoted line; `key=value` with a secret key gets `key=***`."""
    shown = []
    for argument in argv:  # a Hydra override may hold a mapping: tracker={api_key: VALUE}
        key, equals, _ = argument.partition("=")
        names = re.findall(r"(?<![\w.-])[\w.-]+(?![\w.-])(?=['\"]?\s*[:=])", argument)
        hide = equals and any(is_secret_name(name) for name in names)
        shown.append(f"{key}={MASK}" if hide else redact_text(argument))
    return shlex.join(shown)
