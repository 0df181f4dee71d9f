"""Find secrets in what is to be written and read again: settings, facts of data, names of files.

What is read again cannot simply be masked: a masked setting is another setting, a masked name leads
to no file. So these are refused, in lines that name the place and never the secret.
"""

from collections.abc import Callable, Iterable, Mapping

from repro.core.errors import UserError, refuse
from repro.core.files import Json, JsonObject
from repro.core.redaction import (
    SHORTEST,
    is_secret_name,
    is_setting,
    redact_name,
    redact_shapes,
    secret_variables,
)
from repro.core.secret_masks import MASK, mask_tokens

_EQUAL = 6  # characters from which on a text that equals a secret is one; redaction.py has SHORTEST
_READ_IT = "let the code read the secret from a variable of the environment"


def refuse_secret_settings(settings: JsonObject) -> None:
    """Raise UserError for each setting that is, or is named like, a secret."""
    variables = secret_variables(shortest=_EQUAL)
    refuse([*_faults(settings, "", lambda text: _secret_in(text, variables))])


def _faults(
    settings: Mapping[str, Json], prefix: str, find: Callable[[Json], str | None]
) -> Iterable[str]:
    """Yield a line for each setting below `prefix`; `find` tells what secret a value is."""
    for name, value in settings.items():
        place = f"{prefix}{name}"
        if is_secret_name(name) and not is_setting(name, value):
            yield (
                f"{redact_name(place)}: named like a secret, and settings are written into each "
                f"run: rename it if it is none, else {_READ_IT}"
            )
        elif isinstance(value, dict):
            yield from _faults(value, f"{place}.", find)
        else:
            items = value if isinstance(value, list) else [value]
            for found in {word for item in items if (word := find(item))}:
                yield f"{redact_name(place)}: {found}, and settings are written into each run: " + (
                    _READ_IT
                )


def _secret_in(value: Json, variables: Mapping[str, str]) -> str | None:
    """Say what secret a setting's value is or holds; a URL's login is masked and no fault."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, dict):  # a group in a list
        if any(is_secret_name(name) and not is_setting(name, part) for name, part in value.items()):
            return "it has a part that is named like a secret"
        value = [*value, *value.values()]
    if isinstance(value, list):
        return next((found for part in value if (found := _secret_in(part, variables))), None)
    text = str(value)
    masked = redact_shapes(text)
    if "://" not in text and (masked == MASK or mask_tokens(text) != text):
        return "its value looks like a token or a key"
    for secret, variable in variables.items():
        if text == secret or (len(secret) >= SHORTEST and secret in masked):
            return f"it holds the value of {variable}, a secret by the variable's name"
    return None


def without_secrets(facts: JsonObject, whose: str) -> JsonObject:
    """Return facts with tokens and the logins of URLs as ***, on every machine the same.

    UserError if they hold a secret of this machine's environment. `whose`: who gave the facts.
    Names hide nothing here: a vocabulary may have the word "password".
    """
    variables = secret_variables()

    def cleaned(value: Json) -> Json:
        if isinstance(value, dict):
            return {text(name): cleaned(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [cleaned(item) for item in value]
        return text(value) if isinstance(value, str) else value

    def text(value: str) -> str:
        masked = redact_shapes(value) if "://" in value else mask_tokens(value)
        for secret, variable in variables.items():
            if secret in masked:
                raise UserError(
                    f"{whose} hold the value of {variable}, a secret by the variable's name, and "
                    "they are written into each run: leave it out"
                )
        return masked

    return {text(str(name)): cleaned(value) for name, value in facts.items()}


def refuse_secret_names(names: Iterable[str], what: str) -> None:
    """Raise UserError for each file whose name holds a secret; `what`: the kind of files."""
    joined = "\n".join(names)
    if (masked := redact_name(joined)) == joined:  # all at once: there may be a million
        return
    faults = [
        f"{shown}: the name of this file{what} holds a secret, and names are written into each "
        "run: rename it"
        for shown, name in zip(masked.split("\n"), joined.split("\n"), strict=True)
        if shown != name
    ]
    refuse(faults)
