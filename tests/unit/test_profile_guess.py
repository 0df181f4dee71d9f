"""The profile that a command puts in force before its config can be read."""

from pathlib import Path

import pytest
from conftest import TEMPLATE  # noqa: F401  # it puts the kit on sys.path
from repro.environment.profile import guess_profile


@pytest.mark.parametrize(
    ("arguments", "config", "profile"),
    [
        ([], "seed: 42\nprofile: portable      # a comment\n", "portable"),
        ([], "profile: native\n", "native"),
        ([], "profile: 'native'\n", "native"),
        ([], "tracker:\n  profile: native\n", "auto"),  # not at the top level
        ([], "# profile: native\n", "auto"),
        ([], "", "auto"),
        (["profile=native"], "profile: portable\n", "native"),
        (["++profile=native", "seed=3"], "profile: portable\n", "native"),
        (['profile="native"'], "profile: portable\n", "native"),
        (["profile=native", "profile=portable"], "profile: native\n", "portable"),
        (["name=profile=native"], "profile: portable\n", "portable"),
        (["profile=naitve"], "profile: portable\n", "naitve"),  # no profile: Hydra will say so
        (["profile=native,portable"], "profile: portable\n", "portable"),
    ],
)
def test_the_profile_is_guessed_from_the_command_line_or_the_config(
    tmp_path: Path, arguments: list[str], config: str, profile: str
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "config.yaml").write_text(config)
    assert guess_profile(tmp_path, arguments) == profile
