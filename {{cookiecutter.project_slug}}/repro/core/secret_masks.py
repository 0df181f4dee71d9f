"""Mask secrets that are known by their shape; repro/core/redaction.py knows names and values."""

import re
from functools import cache

from repro.core.secret_contexts import COMMANDS, CONTEXTS, Rule
from repro.core.secret_tokens import TOKENS, Token

MASK = "***"

# Lines of a private key after its first one, as they stand in a patch or in a list of texts.
_KEY_BEGINS = re.compile(r"BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY|Private-Lines: \d|PuTTY-User-Key-File")
_KEY_ENDS = re.compile(r"END [A-Z0-9 ]{0,40}PRIVATE KEY|Private-MAC: ")
_KEY_HEAD = re.compile(
    r"[+\- ]?[ \t]*(?:Proc-Type|DEK-Info|Version|Comment|Encryption|Public-Lines)"
)
_KEY_LINE = re.compile(
    r"""([+\- ]?[ \t]*(?:[-|>][ \t]+)?[bru]?["']?)([A-Za-z0-9+/=]{4,})"""
    r"""((?:\\r)?(?:\\n)?["']?[,+\\]?\s*)"""
)
_KEY_INLINE = re.compile(
    r"(BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-{0,5})([^-\n\"']{16,})(?=-|\"|'|$)"
)


def mask_tokens(text: str) -> str:
    """Mask private keys, and tokens that are known by how they begin."""
    text = _mask_private_keys(text)
    for token in TOKENS:
        if token.prefix in text:
            text = _token_pattern(token).sub(_whole, text)
    return text


def mask_contexts(text: str) -> str:
    """Mask secrets that are known by what stands around them."""
    lower = text.lower()
    for context in CONTEXTS:
        if any(word in lower for word in context.words):
            text = _pattern(context.pattern).sub(mask_value, text)
    found = [rule for rule in COMMANDS if any(word in lower for word in rule.words)]
    return _mask_commands(text, found) if found else text


def mask_value(match: re.Match[str]) -> str:
    """Mask the group `value` of a match, unless it stands for a value that is put in later."""
    if is_placeholder(match["value"]):
        return match[0]
    before = match[0][: match.start("value") - match.start()]
    after = match[0][match.end("value") - match.start() :]
    return before + MASK + after


def is_placeholder(value: str) -> bool:
    """Tell whether a value is a variable, a format or an omission: {token}, $TOKEN, %s, <token>."""
    rest = re.sub(
        r"\$?\{[^{}]{0,200}\}|\$\(?\w{1,80}\)?|%\(?\w{0,40}\)?[srd]|<[^<>]{0,80}>|\*{3,}|\.{3}"
        r"|(?i:bearer|basic|token) ",
        "",
        value,
    )
    return re.search(r"[^\W_]", rest) is None


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _token_pattern(token: Token) -> re.Pattern[str]:
    """Return a pattern that begins with a fixed text: such a one is found fast."""
    return _pattern(f"{re.escape(token.prefix)}[{token.alphabet}]{{{token.shortest},}}")


def _whole(match: re.Match[str]) -> str:
    """Mask a token, unless it is the end of a longer word."""
    before = match.string[match.start() - 1 : match.start()]
    is_end = match[0][0].isalnum() and before.isalnum() and before.isascii()
    return match[0] if is_end else MASK


def _mask_commands(text: str, rules: list[Rule]) -> str:
    """Mask the secrets in each line, taken together with those that it goes on in."""

    def mask(line: re.Match[str]) -> str:
        masked = line[0]
        lower = masked.lower()
        for rule in rules:
            if any(word in lower for word in rule.words):
                masked = _pattern(rule.pattern).sub(mask_value, masked)
        return masked

    return _pattern(r"(?:[^\\\n]|\\\r?\n?)+").sub(mask, text)


def _mask_private_keys(text: str) -> str:
    """Mask the lines of private keys, also of a part of one: a patch may begin or end within it."""
    if "PRIVATE KEY" not in text and "Private-Lines" not in text:
        return text
    text = _KEY_INLINE.sub(lambda match: match[1] + MASK, text)
    lines = text.split("\n")
    _mask_lines(lines, range(len(lines)), _KEY_BEGINS)
    _mask_lines(lines, range(len(lines) - 1, -1, -1), _KEY_ENDS)
    return "\n".join(lines)


def _mask_lines(lines: list[str], numbers: range, start: re.Pattern[str]) -> None:
    """Mask the lines that follow a line with `start`, in the order of `numbers`."""
    inside = False
    for number in numbers:
        line = lines[number]
        if start.search(line):
            inside = True
        elif inside and (match := _KEY_LINE.fullmatch(line)):
            lines[number] = match[1] + MASK + match[3]
        elif inside and line.strip("+- \t\r*") and not _KEY_HEAD.match(line) and MASK not in line:
            inside = False
