"""The base classes of a project's settings: what they refuse, and what they take."""

from typing import Any

import pytest
from pydantic import ValidationError
from repro.core.errors import UserError
from repro.core.hashing import derive_seed
from repro.core.secret_values import refuse_secret_settings
from repro.runs.configuration import _without_choices
from repro.runs.settings import ExperimentConfig, Training

TRAINING = {"epochs": None, "batch_size": 8, "shards": 1, "max_steps": None}
CONFIG = {
    "name": "mine",
    "seed": 3,
    "seeds": dict.fromkeys(("data_split", "model_init", "training", "evaluation")),
    "profile": "portable",
    "determinism": "strict",
    "device": "cpu",
    "threads": 1,
    "tracker": {"name": "none"},
    "training": {**TRAINING, "epochs": 2},
    "evaluation": {"batch_size": 8},
    "output": {"log_every": 1, "checkpoint_every": None, "keep_checkpoints": 3, "trace": True},
    "num_workers": 0,
    "data_dir": "data",
    "run_dir": None,
    "resume": None,
}


def fault(act: Any, **settings: Any) -> str:
    with pytest.raises(ValidationError) as error:
        act(**settings)
    return str(error.value)


@pytest.mark.parametrize("length", [{}, {"epochs": 2, "steps": 9}, {"epochs": None, "steps": None}])
def test_a_training_has_one_length(length: dict[str, int | None]) -> None:
    told = fault(Training, **{**TRAINING, **length})
    assert "needs one of epochs and steps: training.steps=1000 training.epochs=null" in told


def test_a_training_is_of_epochs_or_of_steps() -> None:
    assert Training(**{**TRAINING, "epochs": 2}).steps is None  # type: ignore[arg-type]
    assert Training(**{**TRAINING, "steps": 9}).epochs is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"steps": 0}, "greater than or equal to 1"),
        ({"steps": 1.5}, "valid integer"),
        ({"patience": 0}, "greater than or equal to 1"),
        ({"shards": 3}, "power of two"),
        ({"shards": 16}, "shards should be at most batch_size"),
        ({"gradient_clip": 0.0}, "greater than 0"),
        ({"gradient_clip": float("inf")}, "finite"),
        ({"batch_sizes": 3}, "not permitted"),
        ({"compile": "true"}, "valid boolean"),
    ],
)
def test_a_setting_that_is_no_training_is_refused(setting: dict[str, Any], words: str) -> None:
    assert words in fault(Training, **{**TRAINING, "steps": 9, **setting})


def test_the_seeds_of_the_phases_follow_from_the_master_seed() -> None:
    config = ExperimentConfig.model_validate(CONFIG)
    assert config.seeds.training == derive_seed(3, "training")
    given = {**CONFIG, "seeds": {**CONFIG["seeds"], "training": 5}}  # type: ignore[dict-item]
    changed = ExperimentConfig.model_validate(given)
    assert changed.seeds.training == 5
    assert changed.seeds.evaluation == config.seeds.evaluation


def test_compiling_needs_the_native_profile() -> None:
    training = {"training": {**TRAINING, "epochs": 2, "compile": True}}
    assert "training.compile=true needs profile=native" in fault(
        ExperimentConfig, **{**CONFIG, **training}
    )
    assert ExperimentConfig.model_validate({**CONFIG, **training, "profile": "native"})


def test_settings_of_places_and_of_output_have_no_influence_on_the_bits() -> None:
    told = ExperimentConfig.model_validate(CONFIG).bits_settings()
    assert not told.keys() & {"output", "num_workers", "tracker", "data_dir", "run_dir", "resume"}
    assert told.keys() >= {"seed", "seeds", "training", "evaluation", "profile", "name"}


def test_a_choice_of_fixed_words_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that is also one of the kit's words changes nothing; free text is refused."""
    monkeypatch.setenv("DB_PASSWORD", "portable")
    config = ExperimentConfig.model_validate(CONFIG)
    refuse_secret_settings(_without_choices(config))
    named = ExperimentConfig.model_validate({**CONFIG, "name": "portable"})
    with pytest.raises(UserError, match="name: it holds the value of DB_PASSWORD"):
        refuse_secret_settings(_without_choices(named))
