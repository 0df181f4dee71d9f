"""Say in REPRODUCE.md where the authors' own files go, so that each command there can be run.

What a claim was trained with may be in no repository and have no address. The setting that names
its folder is recorded with the claim, and the variable that the setting takes its value from, if
there is one, stands in configs/config.yaml. Promises that the same files give the same words.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from repro.core.bounded import read_text
from repro.core.errors import UserError
from repro.core.layout import CONFIGS, own_place
from repro.core.markdown import code
from repro.results.recording import RecordedClaim

_OF_VARIABLE = r"""["']?\$\{oc\.env:\s*["']?(\w+)"""


def own_data(root: Path, claims: Iterable[RecordedClaim]) -> list[str]:
    """Return a paragraph for each setting that names a folder of the authors' own files."""
    settings = {claim.dataset.own_files: claim.dataset.dataset for claim in claims}
    return [_paragraph(root, setting, dataset) for setting, dataset in settings.items() if setting]


def _paragraph(root: Path, setting: str, dataset: str | None) -> str:
    variable = variable_of(root, setting)
    otherwise = f", or name their folder by `export {variable}=FOLDER`" if variable else ""
    what = f"**{dataset}**" if dataset else "the data"
    place = code(f"{own_place(setting)}/")
    return (
        f"The files of {what} are the authors' own: those of the folder that the setting "
        f"{code(setting)} names. An archive that was made with its data has them in {place}, where "
        "each command finds them. Where they are missing, copy them to that place first (a link to "
        f"their folder will do outside of a container){otherwise}."
    )


def variable_of(root: Path, setting: str) -> str:
    """Return the variable of the environment that a setting takes its value from; "" for none."""
    try:
        text = read_text(root / CONFIGS / "config.yaml")
    except (OSError, UserError):  # a program of the author's own may have no such file
        return ""
    found = re.search(rf"(?m)^{re.escape(setting)}:\s*{_OF_VARIABLE}", text)
    return found[1] if found else ""
