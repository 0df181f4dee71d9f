"""Which worker does which tests, and in what order: both cores have something to do to the end."""

from pathlib import PurePath

import pytest
from xdist.scheduler import LoadScopeScheduling

# Files whose tests share something expensive: one worker does all of a file. Of the others any
# worker does any test. Both in this order, by their time: the last ones to start have to be short.
TOGETHER = [
    *("tracking", "verify", "verify_script", "archive", "compare", "generation", "doctor", "forks"),
    *("text_and_table", "own_tasks", "own_files", "fuzzing"),
]
_OF_ENGINES = {  # tests of the same trainings
    "engines": [
        "test_an_engine_gives_the_same_files_again",
        "test_kills_at_three_steps_change_no_byte",
        "test_evaluation_has_the_bits_of_one_process",
        "test_the_losses_of_shards_within_a_bound",
        "test_diff_names_the_step_and_the_quantity",
    ],
    "accumulated": [
        "test_each_step_exchanges_the_same_buckets_after_its_last_part",
        "test_after_each_step_all_processes_have_the_buffers_of_the_first",
        "test_initial_weights_are_those_of_shards",
        "test_gradients_of_two_parts_of_a_process_add_up",
        "test_delays_change_no_byte",
        "test_delays_in_ten_trainings_change_no_byte",
    ],
    "two optimizers": [
        "test_two_optimizers_and_weighted_losses_are_those_of_shards",
        "test_bf16_goes_on_with_the_same_bits",
    ],
}
# One after the other: each takes more than 10 GB of disk for a while.
LARGE = ("test_image", "test_verify_script_container")
SHARING = {  # tests of a fixture that takes long, in files whose others do not need it
    **{test: group for group, tests in _OF_ENGINES.items() for test in tests},
    "test_ten_kills_at_random_moments_change_nothing": "uninterrupted",
    "test_sigterm_saves_marks_and_goes_on_with_the_same_bits": "uninterrupted",
}
LONGEST = [
    "image",
    "verify_script_container",
    "test_the_projects_own_tests_pass",
    "test_ten_kills_at_random_moments_change_nothing",
    "test_sigterm_saves_marks_and_goes_on_with_the_same_bits",
    *_OF_ENGINES["engines"],
    "test_claims_of_two_processes_are_verified_as_a_whole_and_in_part",
    "test_a_claim_of_four_processes_is_recorded_and_verified",
    "test_make_demo_ends_with_identical",
    "tracking",
    "verify",
    "test_each_step_of_adapting_works",
    "test_a_planted_fault_is_named",
    "test_the_commands_of_reproduce_md_end_as_it_says",
    "test_ctrl_c_shows_no_traceback_at_any_moment",
    "forks",
    "generation",
    "stopping",
    "links",
    "processes",
    "parts_processes",
    "other_machines",
    "setup",
    "large_data",
    "diff",
    "training",
    "doctor",
    "fuzzing",
    "compare",
    "archive",
    "own_tasks",
    "own_files",
    "text_and_table",
    "locks_resolve",
    "data",
]


def place(item: pytest.Item) -> int:
    """Among those that take long; behind all of them for the others."""
    name = item.name.partition("[")[0]
    stem = item.path.stem.removeprefix("test_")
    return next((n for n, long in enumerate(LONGEST) if long in (name, stem)), len(LONGEST))


def takes_long(item: pytest.Item) -> bool:
    """Tell whether a test may take minutes where a machine is slow."""
    return place(item) < len(LONGEST) or item.path.parent.name == "system"


class Groups(LoadScopeScheduling):  # type: ignore[misc]
    """What one worker does: a file of TOGETHER, of unit/ or of system/, or else a single test."""

    def _split_scope(self, nodeid: str) -> str:
        name = nodeid.rpartition("::")[2].partition("[")[0]
        if name in SHARING:
            return SHARING[name]
        path = PurePath(nodeid.partition("::")[0])
        together = path.parent.name in ("unit", "system")
        together |= path.stem.removeprefix("test_") in TOGETHER
        if path.stem in LARGE:
            return "large"
        return path.stem if together else nodeid
