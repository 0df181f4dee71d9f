"""Run the author's functions `train(session)` and `evaluate(session)` as commands.

[tool.repro] names them as "module:function". The commands accept what `record` and `verify` pass:
seed=, run_dir=, resume=, tracker=, output.trace=, training.max_steps= and --conditions.
"""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro import environment
from repro.core import container, layout
from repro.core.command import Parser
from repro.core.errors import UserError
from repro.core.launch import is_first, stop_restarts
from repro.core.project import author_object, command_module
from repro.core.special_files import resolved

if TYPE_CHECKING:  # torch waits until the profile is in force
    from repro.runs.evaluation import EvaluationPlaces
    from repro.runs.training_session import TrainingSession


def train_command(root: Path, description: str | None) -> int:
    """Train by the author's function, or print the conditions, or run a sweep."""
    program = command_module(root, "train")
    parser = Parser(program, description)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("-m", "--multirun", action="store_true", help="run every combination")
    parser.add_argument("--conditions", action="store_true", help="print what bits depend on")
    parser.add_argument("--foresee", action="store_true", help="the same, and what is measured")
    check = "print what bits depend on, once every sample of tar files was read"
    parser.add_argument("--check", choices=["full"], help=check)
    arguments = parser.parse_intermixed_args()
    if not arguments.multirun:  # each run of a sweep is a process of its own
        environment.enter_early(root, arguments.settings)
    loader = author_object(root, "config")  # with Hydra: after the interpreter was started anew
    if arguments.multirun:
        from repro.runs.sweep import sweep

        return sweep(root, program, loader, arguments.settings)
    config = loader.load(arguments.settings)
    environment.enter(config.profile, config.threads)
    if arguments.conditions or arguments.foresee or arguments.check:
        return _print_conditions(root, config, arguments.foresee, arguments.check == "full")
    _say_which_files_are_taken(arguments.settings, config)
    return _train(root, config)


def _say_which_files_are_taken(settings: list[str], config: Any) -> None:
    """Say before the training which paths of the command are not here, and what stands for them."""
    from repro.runs.own_places import replaced_by_own_places

    for line in replaced_by_own_places(settings, config) if is_first() else []:
        print(line, flush=True)


def _print_conditions(root: Path, config: Any, foresee: bool, is_checking: bool) -> int:
    """Call the author's functions until they have said what the data are, and what they measure."""
    from repro.tasks.asking import foreseen_of, situation_of

    train = author_object(root, "train")
    if foresee:
        told = foreseen_of(root, config, train, lambda: author_object(root, "evaluate"))
    else:
        told = situation_of(root, config, train, is_checking).as_json()
    print(json.dumps(told))
    return 0


def _train(root: Path, config: Any) -> int:
    """Train in a new run, or go on in an old one; return the exit code."""
    from repro.diagnosis.recheck_file import RecheckFiles
    from repro.runs.training_session import TrainingSession
    from repro.training.interruption import EXIT_CODE
    from repro.training.lost_processes import naming_lost_processes

    _say_what_a_container_keeps(root, config)
    session = TrainingSession(root, config, lambda run: _tracked(root, config, run))
    if session.restarts.was_asked:
        return _not_started_again(session)
    session.step_keeper = RecheckFiles(root, lambda: session.run.folder if session.run else None)
    with naming_lost_processes(), session.engine.naming_faults():
        try:
            author_object(root, "train")(session)
            session.finish()
        finally:
            session.close()
        bits = session.bits if session.finished else ""
        if session.was_asked:
            stop_restarts(session.processes.wait)  # before the first process ends
        session.processes.close()
    if session.processes.rank == 0:
        _say_what_came(session, bits)
    if session.was_asked:
        return EXIT_CODE
    if not session.finished:
        raise UserError(
            f"the loop ended after step {session.step}, before its last one: to end a training "
            "early, call session.stop() in a step, and let the loop go on"
        )
    return 0


def _not_started_again(session: "TrainingSession") -> int:
    """Say that SIGTERM has ended this training, so that torchrun's restart of it ends as well."""
    from repro.training.interruption import EXIT_CODE

    if session.processes.rank == 0:
        words = "SIGTERM has ended this training, so torchrun does not start it again"
        print(f"{words}: resume=auto goes on with {session.start}", flush=True)
    stop_restarts(session.processes.wait)
    session.processes.close()
    return EXIT_CODE


def _say_what_a_container_keeps(root: Path, config: Any) -> None:
    """Say before the training what would be lost after it; UserError if no run can be written."""
    if not container.is_ours() or not is_first():
        return
    from repro.runs.git import get_git_info

    runs = root / (config.run_dir or layout.RUNS)
    if fault := container.fault_of_writing(runs):
        raise UserError(fault)
    if (fault := container.fault_of_keeping(runs)) and not _is_verified(root, runs):
        print(f"warning: {fault}", flush=True)
    if get_git_info(root).commit_hash is None:
        print(
            "warning: this image was built without its commit, so no run in it tells its code: "
            "build it with make image, in the project's git repository",
            flush=True,
        )


def _is_verified(root: Path, run: Path) -> bool:
    """Tell whether `verify` trains here: its verdict is printed, and nobody keeps the run."""
    return root / layout.RUNS / layout.VERIFIED in run.parents


def _say_what_came(session: "TrainingSession", bits: str) -> None:
    """Print the bits and the folder, or how to go on."""
    run = session.run
    if run is None and session.finished:
        print(f"{session.start} has done {session.step} steps: nothing is left to train")
        print(f"bits {bits}")
    elif session.was_asked and run:
        print(f"SIGTERM: saved after step {session.step}: run_dir={run.folder} resume=auto goes on")
    elif session.finished and run:
        print(f"bits {bits}")
        print(f"run  {run.folder}")
    fault = container.fault_of_keeping(run.folder) if run else None
    if fault and run and not _is_verified(session.root, run.folder):
        print(f"warning: {fault}")  # last: the line before names what will not be there


def _tracked(root: Path, config: Any, run: Path) -> AbstractContextManager[None]:
    """Show a run in the tracker that the config names, while it trains."""
    from repro.tracking import TrackerSettings, tracked

    chosen = config.tracker
    settings = TrackerSettings(chosen.name, chosen.uri, chosen.largest_mb, chosen.wait)
    return tracked(root, run, settings)


def prepare_command(root: Path, description: str | None) -> int:
    """Prepare the data of a config anew, and say what they are."""
    parser = Parser(command_module(root, "prepare"), description)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    settings = parser.parse_args().settings
    environment.enter_early(root, settings)
    config = author_object(root, "config").load(settings)
    environment.enter(config.profile, config.threads)
    from repro.tasks.author import preparation

    prepared = preparation(root, config).prepare()
    samples = prepared.facts.get("samples")
    told = f"{samples} samples" if samples else "the data"
    print(f"{told} of {config.dataset.name} in {prepared.folder}")
    return 0


def evaluate_command(root: Path, description: str | None) -> int:
    """Evaluate a checkpoint by the author's function; 1 if a recorded result is another one."""
    program = command_module(root, "evaluate")
    parser = Parser(program, description)
    default = root / layout.RUNS / layout.LATEST / layout.CHECKPOINTS / layout.LAST
    parser.add_argument("--checkpoint", type=Path, default=default, help="a checkpoint's folder")
    folder = resolved(parser.parse_args().checkpoint)
    environment.enter_early(root, [])
    from repro.runs.configuration import settings_beside, settings_of

    loader = author_object(root, "config")
    config = loader.revive({**settings_beside(folder, loader.free), **settings_of(folder)})
    environment.enter(config.profile, config.threads)
    return _evaluate(root, config, folder)


def _evaluate(root: Path, config: Any, folder: Path) -> int:
    """Write the metrics of a checkpoint into its run, and compare them with what is recorded."""
    import torch

    from repro.results.claims import compare_with_recorded
    from repro.runs.evaluation_session import EvaluationSession
    from repro.tracking import send

    if config.device == "cuda" and not torch.cuda.is_available():
        config = config.model_copy(update={"device": "auto"})  # trained elsewhere
    session = EvaluationSession(root, config, folder)
    metrics = session.metrics(author_object(root, "evaluate")(session))
    places = session.places
    places.write(metrics)
    numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
    told = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
    print(f"test {told}  step {session.step}")
    print(f"bits {session.bits}")
    print(f"written: {', '.join(_written(places))} in {places.run}")
    send(root, places.run)
    verdict, equal = compare_with_recorded(root, session.situation, metrics, places.run)
    print(verdict)
    return 0 if equal else 1


def _written(places: "EvaluationPlaces") -> list[str]:
    """Return the names of what was written; an author need not draw figures."""
    figures = [path for path in places.figures if path.is_dir()]
    return [str(path.relative_to(places.run)) for path in (*places.metrics, *figures)]
