"""Read single settings of a config that is JSON, such as a run's or a checkpoint's.

Such a config may be of another version, or edited by hand: what it lacks is None or left out, and
never an error.
"""

from repro.core.files import Json, JsonObject
from repro.core.hashing import derive_seed


def setting(config: JsonObject, name: str) -> Json:
    """Return the value of a setting by its dotted name; None where the config has none."""
    value: Json = config
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def without_setting(config: JsonObject, name: str) -> JsonObject:
    """Return the config without a setting, which is given by its dotted name."""
    group, _, rest = name.partition(".")
    if not rest:
        return {key: value for key, value in config.items() if key != name}
    settings = config.get(group)
    if not isinstance(settings, dict):
        return config
    return {**config, group: without_setting(settings, rest)}


def seeds_by_hand(config: JsonObject) -> JsonObject:
    """Return those of the config's seeds that do not follow from the master seed."""
    master = config.get("seed")
    seeds = config.get("seeds")
    if not isinstance(master, int) or not isinstance(seeds, dict):  # a file that somebody edited
        return {}
    return {phase: seed for phase, seed in seeds.items() if seed != derive_seed(master, phase)}
