"""Keep secrets out of what is written.

Recognises a secret by its name, its shape, as a value of the environment or in a URL. Does not see
into compressed data, nor a secret that looks like any other word.
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

MASK = "***"
# Patterns are compiled when they are first used: a message about a typo needs none of them.

# Searched in a name's words, lower case, joined by "_". `token` counts as the last word alone, and
# not after a word of language modelling: HF_TOKEN does; max_tokens, pad_token, tokenizer do not.
_SECRET_NAME = (
    r"secret|passw(or)?d|passphrase|credential|(^|_)authorization(_|$)|(^|_)auth$"
    r"|(api|access|auth|private|account|storage|encryption|kaggle)_?(key|token)s?(_|$)"
    r"|(^|_)(?<!(?:pad|eos|bos|sos|cls|sep|unk|per|max|num|end)_)(?<!(?:mask|stop|text|word)_)"
    r"(?<!(?:start|begin|blank|image|class|audio|query|patch|first)_)(?<!special_)token$"
)
# Patterns start at a boundary and repeat boundedly: a line of a megabyte must not take minutes.
_SHAPES = (
    r"(?<![A-Za-z0-9])(gh[opsur]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{20,}"
    r"|sk-(?=[a-z-]{0,40}[A-Z0-9])[\w-]{20,}|A[KS]IA[0-9A-Z]{16}|xox[a-z]-[\w-]{10,}"
    r"|eyJ[\w-]{8,999}\.[\w-]{8,}\.[\w-]{8,})"  # a JSON Web Token
    r"|(?<=[Bb]earer )[\w.~+/=-]{8,}|(?<=uthorization: Basic )[\w+/=-]{8,}"
    r"|(?<=://)(?!git@|(\$?\{\w*\}:?)+@)[^\s/\"'<>]{1,512}(?=@)"  # not f"https://{user}:{token}@"
)
# Keys that may be secret names, so that a match of any other key hides none: text = 'api_key="..."'
_KEY = r"(?P<key>[\w.-]{0,60}(?i:secret|passw|passph|credential|auth|token|key)[\w.-]{0,60})"
_LITERALS = (  # the values go, if is_secret_name(key)
    # key = "value", "key": "value", key: str = "value"; in a notebook's JSON quotes follow a "\"
    rf"""(?<![\w.-]){_KEY}\\?["']?\]?( ?: ?[\w.|\[\] ]{{1,40}}?)?[ \t]*[:=][=>]?[ \t]*"""
    r"""[bfruBFRU]{0,2}(?P<quote>\\?["'])(?P<value>((?!(?P=quote))(\\.|[^\\\n])){6,})""",
    # key: value of YAML, key = value of INI; a type or a variable in that place is code
    rf"""(?m)^[+\- ]?[ \t]*(- )?["']?{_KEY}["']?(:[ \t]+(?!([a-z]+\.)*(Tensor|SecretStr|string"""
    r"""|object|Callable)[ \t\r]*$)|[ \t]+=[ \t]*(?![A-Za-z_.]+[ \t\r]*$))"""
    r"""(?P<value>[^\s"'()\[\]{},;<>$]{6,})(?=[ \t\r]*$|[ \t]+#)""",
    # KEY=value of a shell or of a URL's query
    rf"""(?<![\w.-]){_KEY}=(?![$=])"""
    r"""(?P<value>[^\s"'()\[\]{},;<>&\\]{6,})(?=[\s"'&\\;]|$)""",
)


def is_secret_name(name: str) -> bool:
    """Whether a value under this name is a secret: apiKey, HF_TOKEN; not max_tokens, not author."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return re.search(_SECRET_NAME, "_".join(words).lower()) is not None


def redact_url(url: str) -> str:
    """Return the URL without user, password, token, query and fragment; ssh keeps `git@`."""
    # The user's part ends at the host's last "@", or, where a password holds "/", at the last "@".
    match = re.match(r"((?:[^/@]*:)?//)?([^/]*@|[^/@]*:(?!\d*(?:/|$)).*@)?([^?#]*)", url.strip())
    scheme, login, rest = match.groups("") if match else ("", "", "")
    ssh_user = "git@" if login.startswith(("git@", "git:")) and "http" not in scheme else ""
    return scheme + ssh_user + rest


def known_secrets(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return values of variables with secret names, and logins in URLs: of 8 characters or more."""
    values: set[str] = set()
    for name, value in environ.items():
        if is_secret_name(name):  # by line: in a diff every line of a key has a "+" before it
            values.update(line.strip() for line in value.splitlines())
        for user, password in re.findall(r"(?<!ssh)://([^\s/@:]*)(?::([^\s/]*))?@", value):
            secret = user if password in ("", "x-oauth-basic") else password
            values.update((secret, unquote(secret)))
    # Longest first: a secret inside another one must not leave the rest of it.
    long = [value for value in values if len(value) >= 8]
    return tuple(sorted(long, key=lambda value: (-len(value), value)))


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

    def mask(match: re.Match[str]) -> str:
        kept = match[0][: match.start("value") - match.start()]
        return kept + MASK if is_secret_name(match["key"]) else match[0]

    text = re.sub(_SHAPES, MASK, text)
    for literal in _LITERALS:
        text = re.sub(literal, mask, text)
    return text


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
        name for name, item in copy.items() if is_secret_name(name) and not _is_setting(name, item)
    }
    return copy | dict.fromkeys(hidden, MASK)


def _is_setting(name: str, value: Any) -> bool:
    """Whether a value is no secret: None, a switch, or a token of a vocabulary (bot_token: 7)."""
    if value is None or isinstance(value, bool):
        return True
    is_short = isinstance(value, int | str) and len(str(value)) < 8
    return is_short and name.lower().endswith("token")


def redact_command(argv: list[str]) -> str:
    """Return the command as one shell-quoted line; `key=value` with a secret key gets `key=***`."""
    shown = []
    for argument in argv:  # a Hydra override may hold a mapping: tracker={api_key: VALUE}
        key, equals, _ = argument.partition("=")
        names = re.findall(r"[\w.-]+(?=['\"]?\s*[:=])", argument)
        hide = equals and any(is_secret_name(name) for name in names)
        shown.append(f"{key}={MASK}" if hide else redact_text(argument))
    return shlex.join(shown)
