"""A project with the defaults: it trains, its results come out again, and differences are named."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import (
    CLAIMS,
    HANGS,
    VENV,
    Project,
    clean_environ,
    commit,
    faults,
    git,
    last_line,
    weights,
)
from forks import forking_environment

SHORT = ("training.max_steps=25", "output.log_every=1")


@pytest.fixture(scope="module")
def reference(project: Project) -> Path:
    """A short run of the default config."""
    done = project.train("run_dir=runs/reference", *SHORT)
    assert done.returncode == 0, done.stderr
    return project.path / "runs" / "reference"


# The verdict ---------------------------------------------------------------------------------


def test_the_default_project_reproduces_identically(project: Project) -> None:
    done = project.module("repro", "verify")
    assert done.returncode == 0, done.stdout + done.stderr
    assert last_line(done.stdout) == "IDENTICAL"


def test_the_recorded_accuracy_is_at_least_985_per_mille(project: Project) -> None:
    recorded = json.loads((project.path / "results" / "expected_metrics.json").read_text())
    claim = recorded["claims"]["digits_baseline"]
    assert len(claim["values"]) == 5
    assert claim["mean"] >= 0.985
    assert f"{claim['mean']:.4f}" in (project.path / "REPRODUCE.md").read_text()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("nn.Linear(size, classes)", "nn.LazyLinear(classes)", "13.weight: a lazy layer"),
        (
            "    return nn.Sequential(*features, *head)",
            "    model = nn.Sequential(*features, *head)\n"
            "    model.phase = nn.Parameter(torch.ones(3, dtype=torch.complex64))\n"
            "    return model",
            "phase: the fused optimizers take no complex weights",
        ),
    ],
)
def test_weights_that_cannot_be_trained_reproducibly_are_refused(
    own_project: Project, old: str, new: str, named: str
) -> None:
    own_project.edit("experiment/model.py", old, new)
    (line,) = faults(own_project.train())
    assert line.startswith(f"error: {named}")
    assert not (own_project.path / "runs").exists()


CHANGES = [
    ("configs/optimizer/adamw.yaml", "0.003", "0.002", "optimizer.learning_rate is 0.002"),
    ("configs/config.yaml", "\nthreads: 1", "\nthreads: 2", "threads is 2, recorded 1"),
    ("configs/config.yaml", "shards: 1", "shards: 2", "training.shards is 2, recorded 1"),
    ("experiment/model.py", "nn.ReLU()", "nn.GELU()", "code: experiment/model.py changed"),
    (
        "repro/training/seeding.py",
        "random.seed(seed)",
        "random.seed(1)",
        "repro/training/seeding.py changed",
    ),
    ("requirements.lock", "pydantic==", "pydantic==9.", "lock: changed"),
    ("experiment/sources.py", '"maximum": 16', '"maximum": 17', "data: changed"),
]


def test_a_changed_condition_is_named_before_training(own_project: Project) -> None:
    """One alone, then all at once."""
    for changes in CHANGES[:1], CHANGES[1:]:
        for file, old, new, _ in changes:
            own_project.edit(file, old, new)
        done = own_project.module("repro", "verify")
        assert last_line(done.stdout) == "DIFFERENT"
        assert "nothing was trained" in done.stdout
        told = done.stdout.partition("nothing was trained")[2]
        assert [named for *_, named in changes if named not in told] == []
    assert "packages: pydantic is" in told  # not what the changed lock says
    assert not [*own_project.path.glob("runs/**/checkpoints")]
    assert own_project.module("repro", "verify").returncode == 1


def test_an_added_and_a_missing_file_are_named(own_project: Project) -> None:
    (own_project.path / "experiment" / "extra.py").write_text("x = 1\n")
    (own_project.path / "configs" / "experiment" / "sgd.yaml").unlink()
    done = own_project.module("repro", "verify")
    assert "code: experiment/extra.py is new" in done.stdout
    assert "code: configs/experiment/sgd.yaml is missing" in done.stdout


def test_names_licence_and_results_are_no_conditions(own_project: Project) -> None:
    for name in ("README.md", "LICENSE", "CITATION.cff"):
        (own_project.path / name).write_text("another\n")
    own_project.edit("configs/claims.yaml", "small CNN", "SMALL CNN")
    done = own_project.module("repro", "verify", "--prefix", "20")
    assert last_line(done.stdout) == "IDENTICAL"


def test_wrong_recorded_bits_are_different(own_project: Project) -> None:
    path = own_project.path / "results" / "expected_metrics.json"
    recorded = json.loads(path.read_text())
    (bits,) = recorded["claims"]["digits_baseline"]["bits"].values()
    bits["42"] = bits["43"]
    path.write_text(json.dumps(recorded))
    done = own_project.module("repro", "verify")
    assert (done.returncode, last_line(done.stdout)) == (1, "DIFFERENT")


def test_another_hardware_class_is_equivalent_which_identical_refuses(
    own_project: Project,
) -> None:
    path = own_project.path / "results" / "expected_metrics.json"
    recorded = json.loads(path.read_text())
    claim = recorded["claims"]["digits_baseline"]
    for of_class in ("bits", "environments"):
        claim[of_class] = {"cuda NVIDIA H100": claim[of_class]["cpu x86-64-v3 portable"]}
    path.write_text(json.dumps(recorded))
    done = own_project.module("repro", "verify", "--require", "identical")
    assert (done.returncode, last_line(done.stdout)) == (1, "EQUIVALENT")


def test_nothing_recorded_is_exit_code_2(own_project: Project) -> None:
    assert (
        "expected one of digits_baseline"
        in faults(own_project.module("repro", "verify", "no_such_claim"))[0]
    )
    (own_project.path / "results" / "expected_metrics.json").unlink()
    done = own_project.module("repro", "verify")
    assert "make record" in faults(done)[0]


# Bits ----------------------------------------------------------------------------------------


def test_the_projects_own_tests_pass(project: Project, tmp_path: Path) -> None:
    """Seeds, data workers, resuming, refusals: the tests that every author gets."""
    done = Project(project.path, forking_environment(tmp_path / "venv")).make("test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in last_line(done.stdout)


@pytest.mark.parametrize(
    "generator", ["random.random()", "np.random.rand()", "torch.rand(1).item()"]
)
def test_a_transform_may_draw_from_any_generator(own_project: Project, generator: str) -> None:
    first = "from dataclasses import dataclass\n"
    own_project.edit("experiment/samples.py", first, f"import random\n{first}")
    own_project.edit(
        "experiment/samples.py",
        "        return image.float() / self.maximum, self.labels[index]",
        f"        return image.float() / 16 * (1 + 0.1 * {generator}), self.labels[index]",
    )
    runs = {}
    for name, settings in {
        "none": ["num_workers=0"],
        "two": ["num_workers=2"],
        "stopped": ["num_workers=1", "training.max_steps=11"],
        "resumed": ["num_workers=3", "resume=runs/stopped"],
        "other": ["seed=1"],
    }.items():
        done = own_project.train(f"run_dir=runs/{name}", *SHORT, *settings)
        assert done.returncode == 0, done.stderr
        runs[name] = weights(own_project.path / "runs" / name)
    assert runs["none"] == runs["two"] == runs["resumed"]
    assert runs["other"] != runs["none"]


def test_two_threads_give_the_same_bits_again_with_and_without_workers(project: Project) -> None:
    runs = []
    for name, workers in (("a", 0), ("b", 2)):
        run = f"run_dir=runs/threads-{name}"
        done = project.train(run, "threads=2", f"num_workers={workers}", *SHORT)
        assert done.returncode == 0, done.stderr
        runs.append(weights(project.path / "runs" / f"threads-{name}"))
    assert runs[0] == runs[1]


def test_a_run_in_shards_resumes_with_the_same_bits(project: Project) -> None:
    settings = (*SHORT, "training.shards=4")
    assert project.train("run_dir=runs/s", *settings).returncode == 0
    assert project.train("run_dir=runs/t", *settings, "training.max_steps=9").returncode == 0
    assert project.train("run_dir=runs/t", *settings, "resume=auto").returncode == 0
    assert weights(project.path / "runs" / "s") == weights(project.path / "runs" / "t")


def test_an_older_run_needs_no_default_that_is_whole(own_project: Project, tmp_path: Path) -> None:
    own_project.edit("configs/config.yaml", "dataset: digits", "dataset: image_folder")
    program = (
        "from experiment.config import LOADER\n"
        f"values = LOADER.load([{f'image_dir={tmp_path}'!r}]).model_dump(mode='json')\n"
        "print(LOADER.revive(values).image_dir)"
    )
    done = own_project.run("python", "-c", program)
    assert done.stdout == f"{tmp_path}\n", done.stderr


SECRET = "hunter2secret"


def test_a_setting_that_is_a_secret_is_refused_before_anything_is_written(
    own_project: Project,
) -> None:
    """By its name, by its value, by the name of a file of code; nothing says the secret itself."""
    old = '    name: Literal["small_cnn"]\n'
    new = f"{old}    password: str = ''\n    note: str = ''\n"
    own_project.edit("experiment/config.py", old, new)
    variables = {"DB_PASSWORD": SECRET}
    settings = ("run_dir=runs/a", "training.max_steps=1")
    code = own_project.path / "configs" / f"{SECRET}.yaml"
    for setting, words in (
        (f"model.password={SECRET}1", "model.password: named like a secret"),
        (f"model.note={SECRET}", "model.note: it holds the value of DB_PASSWORD"),
        (f"data_dir=data/{SECRET}", "data_dir: it holds the value of DB_PASSWORD"),
        (f"name={SECRET}", "name: it holds the value of DB_PASSWORD"),
        ("seed=1", "configs/***.yaml: the name of this file of code holds a secret"),
    ):
        if setting == "seed=1":
            code.write_text("x: 1\n")
        for command in ("experiment.train", "experiment.prepare"):
            if (command, setting) == ("experiment.prepare", "seed=1"):
                continue  # data may be prepared: their manifest has no name of code
            given = settings if command == "experiment.train" else ()
            (line,) = faults(own_project.module(command, *given, setting, **variables))
            assert words in line
            assert SECRET not in line
    assert not (own_project.path / "runs").exists()
    assert not (own_project.path / "data").exists()
    code.unlink()
    assert own_project.train(*settings, **variables).returncode == 0


def test_a_value_of_the_environment_reaches_no_run_no_result_and_no_archive(
    own_project: Project,
) -> None:
    """A data set's setting with a login, a variable that nobody asks for, a file of secrets."""
    old = '    name: Literal["digits"]\n'
    own_project.edit("experiment/config.py", old, f"{old}    url: str\n")
    digits = own_project.path / "configs" / "dataset" / "digits.yaml"
    digits.write_text(f"{digits.read_text()}url: ${{oc.env:DATA_URL}}\n")
    (own_project.path / "configs" / "claims.yaml").write_text(CLAIMS)
    (own_project.path / "configs" / "key.pem").write_text(f"{SECRET}-file\n")
    git(own_project, "init", "--quiet")
    commit(own_project)
    url = f"https://me:{SECRET}@host/x?X-Amz-Signature={SECRET}{'0f' * 20}"
    variables = {"DATA_URL": url, "DB_PASSWORD": f"{SECRET}-word"}
    done = own_project.module("repro", "record", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    commit(own_project)
    done = own_project.module("repro", "archive", "--output", "a.zip", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    (own_project.path / "configs" / "key.pem").unlink()
    files = [path for path in own_project.path.rglob("*") if path.is_file()]
    assert {"manifest.json", "data.json", "a.zip", "trace.jsonl"} <= {path.name for path in files}
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []  # none is packed


def test_settings_that_only_look_like_secrets_count_and_logins_reach_no_file(
    own_project: Project,
) -> None:
    """What is masked in the conditions must not hide a change, nor stop an evaluation."""
    old = '    name: Literal["small_cnn"]\n'
    own_project.edit("experiment/config.py", old, f"{old}    bot_token: int\n    url: str\n")
    model = own_project.path / "configs" / "model" / "small_cnn.yaml"
    url = f"https://me:{SECRET}@host/w.bin?token={SECRET}"
    model.write_text(f"{model.read_text()}bot_token: 7\nurl: {url}\n")
    (own_project.path / "experiment" / "secret_sharing.py").write_text("x = 1\n")
    run = own_project.path / "runs" / "a"
    done = own_project.train("run_dir=runs/a", "training.max_steps=3")
    assert done.returncode == 0, done.stderr
    files = [path for path in run.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"trace.jsonl", "state.json", "config_used.yaml"}
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    conditions = json.loads((run / "experiment_context.json").read_text())["conditions"]
    assert conditions["config"]["model"]["bot_token"] == 7
    assert re.fullmatch("[0-9a-f]{64}", conditions["code"]["experiment/secret_sharing.py"])
    done = own_project.module("experiment.evaluate")
    assert done.returncode == 0, done.stderr
    lines = faults(own_project.train("run_dir=runs/a", "resume=auto", "model.bot_token=8"))
    assert "model.bot_token is 8, recorded 7" in lines[1]


@pytest.mark.parametrize("recipe", ["baseline", "sgd"])
def test_an_older_run_is_evaluated_where_its_data_lie_now(
    own_project: Project, tmp_path: Path, recipe: str
) -> None:
    """On another machine, after a setting was added: with today's value of both."""
    there = tmp_path / "there"
    settings = ("training.max_steps=3", f"data_dir={there}", f"experiment={recipe}")
    done = own_project.train("run_dir=runs/a", *settings)
    assert done.returncode == 0, done.stderr
    evaluate = ("experiment.evaluate",)
    assert own_project.module(*evaluate).returncode == 0
    metrics = own_project.path / "runs" / "a" / "metrics.json"
    before = metrics.read_bytes()
    metrics.unlink()
    there.rename(own_project.path / "data")
    warmup = "    warmup_epochs: NotNegative\n"
    own_project.edit("experiment/config.py", warmup, f"{warmup}    new: int\n")
    own_project.edit("configs/config.yaml", "  compile: false ", "  new: 1\n  compile: false ")
    done = own_project.module(*evaluate)
    assert done.returncode == 0, done.stderr
    assert metrics.read_bytes() == before
    assert not there.exists()


def test_runs_and_data_may_be_links_and_git_sees_neither_them_nor_secrets(
    own_project: Project, tmp_path: Path
) -> None:
    git(own_project, "init", "--quiet")
    commit(own_project)
    for name in ("runs", "data"):
        (tmp_path / "disk" / name).mkdir(parents=True)
        (own_project.path / name).symlink_to(tmp_path / "disk" / name)
    for name in (".env", "me.pem", "image.sif", "image.tar", "image.tar.sha256"):
        (own_project.path / name).write_text("PLANTED\n")
    latest = own_project.path / "runs" / "latest"
    for settings in ([], ["run_dir=runs/mine"]):
        done = own_project.train("training.max_steps=2", *settings)
        assert done.returncode == 0, done.stderr
        said = done.stdout.split("\nrun  ")[1].splitlines()[0]
        assert latest.resolve() == (own_project.path / said).resolve()
    assert git(own_project, "status", "--porcelain") == ""


def test_a_tilde_is_the_home_folder(own_project: Project, tmp_path: Path) -> None:
    done = own_project.module("experiment.prepare", "data_dir=~/my data", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my data" / "digits" / "manifest.json").is_file()
    assert not (own_project.path / "~").exists()


@pytest.mark.parametrize(
    "settings",
    [
        ["experiment=sgd"],
        ["training.precision=bf16"],
        ["training.drop_last=true", "training.gradient_clip=null", "dataset.shift=0"],
        ["profile=native", "determinism=warn"],
        ["determinism=off", "training.warmup_epochs=0"],
    ],
)
def test_other_settings_train(project: Project, tmp_path: Path, settings: list[str]) -> None:
    done = project.train(f"run_dir={tmp_path / 'run'}", *SHORT, *settings)
    assert done.returncode == 0, done.stderr
    assert "bits " in done.stdout


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_tf32_is_refused_on_a_cpu_before_data_are_read(own_project: Project, device: str) -> None:
    settings = ("training.precision=tf32", f"device={device}")
    (line,) = faults(own_project.train(*settings, CUDA_VISIBLE_DEVICES=""))
    assert line.startswith("error: training.precision=tf32 needs an NVIDIA GPU from Ampere on")
    assert line.endswith("and the training is on the CPU: take training.precision=fp32 or bf16")
    assert not (own_project.path / "runs").exists()
    assert not (own_project.path / "data").exists()


def test_precision_and_attention_are_conditions(own_project: Project) -> None:
    found = []
    bf16 = "training.precision=bf16"
    for settings in ((), (bf16,), (bf16, "model.attention=fused")):
        done = own_project.train("model=image_transformer", *settings, "--conditions")
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout)["conditions"]["config"])
    assert [each["training"]["precision"] for each in found] == ["fp32", "bf16", "bf16"]
    assert [each["model"]["attention"] for each in found] == ["math", "math", "fused"]


def test_fused_attention_trains_and_says_what_it_is(project: Project, tmp_path: Path) -> None:
    settings = ("model=image_transformer", "model.attention=fused", "training.max_steps=2")
    done = project.train(f"run_dir={tmp_path / 'run'}", *settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "note: model.attention=fused trains by the mathematical attention"
    )
    math = project.train(f"run_dir={tmp_path / 'math'}", *settings, "model.attention=math")
    assert "note:" not in math.stdout
    bits = [re.findall("bits .*", each.stdout) for each in (done, math)]
    assert bits[0] == bits[1]  # what it said is true


def test_the_environment_of_another_profile_is_replaced(project: Project, tmp_path: Path) -> None:
    """make and the image set the portable profile; profile=native must not be refused there."""
    run = tmp_path / "run"
    done = project.make("train", f"ARGS=profile=native run_dir={run} {' '.join(SHORT)}")
    assert done.returncode == 0, done.stderr
    context = json.loads((run / "experiment_context.json").read_text())
    assert "MKL_CBWR" not in context["environment"]


def test_preparing_twice_gives_the_same_bytes(project: Project, tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        done = project.module("experiment.prepare", f"data_dir={tmp_path / name}")
        assert done.returncode == 0, done.stderr
        files = sorted((tmp_path / name).rglob("*.*"))
        contents.append([(file.name, file.read_bytes()) for file in files])
    assert [name for name, _ in contents[0]] == ["manifest.json", "data.safetensors"]
    assert contents[0] == contents[1]


# What a person sees --------------------------------------------------------------------------


def test_a_runs_folder_holds_what_the_readme_lists(project: Project, reference: Path) -> None:
    done = project.module(
        "experiment.evaluate", "--checkpoint", str(reference / "checkpoints/last")
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in reference.iterdir()} == {
        ".lock",
        "config_used.yaml",
        "command.txt",
        "experiment_context.json",
        "data.json",
        "metrics.jsonl",
        "trace.jsonl",
        "checkpoints",
        "metrics.json",
        "metrics-last.json",
        "figures",
    }
    assert {path.name for path in (reference / "figures").iterdir()} == {
        "confusion_matrix.png",
        "learning_curves.svg",
    }
    metrics = json.loads((reference / "metrics.json").read_text())
    assert sum(map(sum, metrics["confusion"])) == metrics["samples"] == 359
    assert set(metrics["class_accuracy"]) == set("0123456789")
    assert "not compared" in done.stdout  # 25 steps are recorded nowhere
    check = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=reference / "checkpoints" / "last"
    )
    assert check.returncode == 0
    compared = [reference / "metrics.jsonl", reference / "checkpoints" / "last" / "state.json"]
    for file in compared:  # nothing of this machine in what is compared byte for byte
        assert str(project.path) not in file.read_text()


def test_an_unfinished_line_of_metrics_is_ignored(own_project: Project) -> None:
    whole = ("run_dir=runs/a", *SHORT)
    assert own_project.train(*whole).returncode == 0
    expected = (own_project.path / "runs/a/metrics.jsonl").read_bytes()
    assert own_project.train("run_dir=runs/b", *SHORT, "training.max_steps=21").returncode == 0
    with (own_project.path / "runs/b/metrics.jsonl").open("a") as file:
        file.write('{"step": 22, "loss": 1.0}\n{"step": 23, "lo')
    assert own_project.train("run_dir=runs/b", *SHORT, "resume=auto").returncode == 0
    assert (own_project.path / "runs/b/metrics.jsonl").read_bytes() == expected


def test_a_damaged_checkpoint_is_said_and_an_older_one_taken(own_project: Project) -> None:
    settings = (*SHORT, "output.checkpoint_every=10")
    assert own_project.train("run_dir=runs/a", *settings).returncode == 0
    run = own_project.path / "runs" / "a"
    expected = weights(run)
    path = run / "checkpoints" / "step-000000025" / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    done = own_project.train("run_dir=runs/a", *settings, "resume=auto")
    assert done.returncode == 0, done.stderr
    assert "step-000000025 is damaged" in done.stdout
    assert "going back to step-000000020" in done.stdout
    assert weights(run) == expected
    for path in (run / "checkpoints").glob("step-*/SHA256SUMS"):
        path.write_text("")
    done = own_project.train("run_dir=runs/a", *settings, "resume=auto")
    assert "no whole checkpoint" in faults(done)[-1]


def test_resuming_an_older_checkpoint_or_elsewhere_leaves_the_run_alone(
    own_project: Project,
) -> None:
    settings = (*SHORT, "output.checkpoint_every=10")
    assert own_project.train("run_dir=runs/a", *settings).returncode == 0
    run = own_project.path / "runs" / "a"
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    older = f"resume={run / 'checkpoints' / 'step-000000010'}"
    assert own_project.train(older, *settings).returncode == 0
    assert own_project.train(older, "run_dir=runs/b", *settings).returncode == 0
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before
    latest = (own_project.path / "runs" / "latest").resolve()
    for fork in (latest, own_project.path / "runs" / "b"):
        assert weights(fork) == weights(run)
        for name in ("metrics.jsonl", "trace.jsonl"):
            assert (fork / name).read_bytes() == (run / name).read_bytes()
    done = own_project.train("run_dir=runs/b", *SHORT)
    assert "holds a run already" in faults(done)[0]


def test_a_terminal_shows_a_bar_and_other_output_shows_lines(project: Project) -> None:
    done = project.train("run_dir=runs/lines", "training.epochs=2")
    first, *_, last = [line for line in done.stdout.splitlines() if line.startswith("epoch ")]
    assert re.fullmatch(r"epoch   1/.*  \d:\d\d:\d\d left", first)
    assert "left" not in last  # nothing is
    assert "\x1b" not in done.stdout
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [VENV / "bin/python", "-m", "experiment.train", "run_dir=runs/bar", *SHORT],
        cwd=project.path,
        env=clean_environ(TERM="xterm-256color", COLUMNS="100"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    while chunk := _read(main):
        shown += chunk
    assert process.wait() == 0
    assert "25/25" in shown.decode()
    assert "━" in shown.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


def test_a_sweep_runs_every_combination(own_project: Project) -> None:
    done = own_project.train("-m", "seed=1,2", "model.width=4,8", "training.max_steps=2", "name=s")
    assert done.returncode == 0, done.stderr
    runs = list((own_project.path / "runs" / "s").iterdir())
    assert len(runs) == 4
    assert "job 4/4: seed=2 model.width=8" in done.stdout
    refused = own_project.train("-m", "seed=1,-2", "training.max_steps=2", "name=t")
    assert "seed=-2" in faults(refused)[0]
    assert not (own_project.path / "runs" / "t").exists()


# Faults --------------------------------------------------------------------------------------


def test_all_faults_of_a_config_at_once_and_nothing_written(own_project: Project) -> None:
    done = own_project.train(
        "training.epoch=3",
        "training.batch_size=big",
        "optimizer.learnig_rate=1",
        "model=transformer",
        "seed=-1",
        "training.shards=3",
        "name=../outside",
        "[x",
    )
    text = "\n".join(faults(done))
    assert len(faults(done)) == 8, text
    for words in (
        "did you mean training.epochs?",
        "training.batch_size=big: should be a valid integer",
        "did you mean optimizer.learning_rate?",
        "configs/model/ has image_transformer, resnet18, small_cnn",
        "seed=-1: should be greater than or equal to 0",
        "name=../outside",
        "[x: not of the form key=value",
    ):
        assert words in text
    assert not (own_project.path / "runs").exists()
    assert not (own_project.path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["training.shards=3"], "power of two"),
        (["device=cuda"], "no GPU"),
        (["resume=nowhere"], "neither a run nor a whole checkpoint"),
        (["training.batch_size=5000", "training.drop_last=true"], "larger than"),
        (["seed=1,2"], "needs -m"),
        (["--no-such-option"], "unrecognized arguments"),
        (["data_dir=/proc/nowhere"], "/proc/nowhere"),
        (["dataset.validation_fraction=0.0001"], "no validation samples"),
        (["run_dir=configs"], "folder of the project's code"),
        (["name=latest"], "another name"),
        (["seed=abc"], "seed=abc"),
        (["run_dir=/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_a_fault_is_one_line(own_project: Project, arguments: list[str], words: str) -> None:
    lines = faults(own_project.train(*arguments))
    assert len(lines) == 1
    assert words in lines[0]
    assert not (own_project.path / "runs").exists()


def test_a_projects_tests_notice_memory_that_nobody_wrote(own_project: Project) -> None:
    """Fresh memory is filled with NaN there; an ordinary training finds zeros, by luck."""
    own_project.edit(
        "experiment/task.py",
        "        total = functional.cross_entropy(",
        "        logits = logits + torch.empty_like(logits).mul(0)\n"
        "        total = functional.cross_entropy(",
    )
    done = own_project.module("pytest", "-x", "-m", "not gpu", "-k", "same_seed")
    assert done.returncode
    assert "loss nan" in done.stdout


def test_a_loss_that_is_not_finite_says_where_and_how_to_see_it_again(own_project: Project) -> None:
    settings = ("run_dir=runs/a", "optimizer.learning_rate=1e30", "optimizer=sgd")
    first = faults(own_project.train(*settings))
    assert "loss" in first[0]
    assert "samples" in first[1]
    step = int(first[0].partition("step ")[2].partition(":")[0])
    again = faults(own_project.train(*settings, "resume=auto", f"training.max_steps={step}"))
    assert again == first


def test_changed_data_are_named(own_project: Project) -> None:
    assert own_project.module("experiment.prepare").returncode == 0
    path = own_project.path / "data" / "digits" / "prepared" / "data.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    lines = faults(own_project.train(*SHORT))
    assert str(path) in lines[0]
    assert "make data" in lines[0]
    assert own_project.module("experiment.prepare").returncode == 0
    assert own_project.train(*SHORT).returncode == 0


def test_a_folder_of_any_name_will_do(project: Project, tmp_path: Path) -> None:
    """Hydra's own grammar refuses umlauts, brackets and "=" in a value."""
    odd = project.copy(tmp_path / "m\u00fcller (1) a=b 'c'" / "project")
    done = odd.make("reproduce", "ARGS=--prefix 20")
    assert last_line(done.stdout) == "IDENTICAL", done.stdout + done.stderr


def test_a_copied_checkpoint_continues_in_a_new_run(own_project: Project, tmp_path: Path) -> None:
    assert own_project.train("run_dir=runs/a", *SHORT).returncode == 0
    assert own_project.train("run_dir=runs/b", *SHORT, "training.max_steps=9").returncode == 0
    copied = tmp_path / "elsewhere" / "checkpoint"
    shutil.copytree(own_project.path / "runs/b/checkpoints/step-000000009", copied)
    assert own_project.train(f"resume={copied}", *SHORT).returncode == 0
    assert [path.name for path in copied.parent.iterdir()] == ["checkpoint"]
    latest = own_project.path / "runs" / "latest"
    assert weights(latest) == weights(own_project.path / "runs" / "a")


def test_a_run_without_a_checkpoint_is_not_taken_over_by_another(own_project: Project) -> None:
    assert own_project.train("run_dir=runs/a", *SHORT).returncode == 0
    shutil.rmtree(own_project.path / "runs" / "a" / "checkpoints")
    done = own_project.train("run_dir=runs/a", *SHORT, "resume=auto", "seed=7")
    assert "seed is 7, recorded 42" in faults(done)[1]


def test_the_older_checkpoint_of_a_run_is_not_continued_inside_it(own_project: Project) -> None:
    settings = ("run_dir=runs/a", *SHORT, "output.checkpoint_every=10")
    assert own_project.train(*settings).returncode == 0
    done = own_project.train(*settings, "resume=runs/a/checkpoints/step-000000010")
    assert "is not the newest checkpoint" in faults(done)[0]


def test_a_secret_of_the_environment_changes_no_condition(project: Project) -> None:
    plain = project.train("--conditions")
    other = project.train("--conditions", DB_PASSWORD="portable")
    assert plain.stdout == other.stdout


FAULTS = {
    "raise ValueError('a bad sample')": "ValueError: a bad sample",
    "open('7.png')": "error: sample 100 cannot be read: [Errno 2] No such file ",
    "raise UserError(['sample: bad', 'again'])": "error: sample: bad\nerror: again\n",
}
KILLED = "error: DataLoader worker (pid"
STUCK = """pass
        worker = torch.utils.data.get_worker_info()
        if worker and worker.id:
            time.sleep(99)
        if worker:
            raise UserError('bad')"""


@pytest.mark.parametrize(
    ("fault", "told", "workers"),
    [
        *((fault, told, workers) for fault, told in FAULTS.items() for workers in (0, 2)),
        ("os.kill(os.getpid(), 9)", KILLED, 2),
        (STUCK, "error: bad", 2),
    ],
)
def test_a_fault_in_a_sample_ends_the_training(
    own_project: Project, fault: str, told: str, workers: int
) -> None:
    """Workers ignore SIGTERM, with which Python would end them: it waited for them for ever."""
    line = "        image = augment(self.padded[index]"
    added = f"        if index == 100:\n            {fault}\n"
    samples = "experiment/samples.py"
    own_project.edit(samples, line, added + line)
    imports = "import os\nimport time\n\nfrom repro.core.errors import UserError\n"
    own_project.edit(samples, "import numpy", f"{imports}import numpy")
    done = own_project.train(f"num_workers={workers}", "training.max_steps=30")
    assert done.returncode == (2 if told.startswith("error") else 70), done.stderr  # a bug: 70
    assert told in done.stderr
    if told == KILLED:  # another worker, cut off in the midst of its work, may speak before
        (line,) = (x for x in done.stderr.splitlines() if x.startswith("error: "))
        assert "fewer num_workers" in line
    elif told.startswith("error"):
        assert len(faults(done)) == told.count("error")


@pytest.mark.parametrize("limit", ["ulimit -n 24", "export TMPDIR=$PWD/" + "x" * 80])
def test_limits_of_the_machine_end_the_training_in_a_line(own_project: Project, limit: str) -> None:
    """The started workers ignored SIGTERM, and Python waited for them for ever."""
    (own_project.path / ("x" * 80)).mkdir()
    train = f"{VENV}/bin/python -m experiment.train num_workers=4 training.max_steps=3"
    done = own_project.run("bash", "-c", f"{limit}; exec {train}", PYTHONWARNINGS="ignore")
    (line,) = faults(done)
    assert "Too many open files" in line or line.startswith("error: TMPDIR=")
    assert "num_workers=0" in line


def test_a_run_goes_on_beside_checkpoints_that_were_set_aside(own_project: Project) -> None:
    run = ("run_dir=runs/a", "output.checkpoint_every=2", "output.keep_checkpoints=2")
    assert own_project.train(*run, "training.max_steps=6").returncode == 0
    checkpoints = own_project.path / "runs/a/checkpoints"
    (checkpoints / "step-000000006").rename(checkpoints / "step-000000006.bad")
    shutil.copytree(checkpoints / "step-000000004", checkpoints / "step-000000900.bak")
    done = own_project.train(*run, "training.max_steps=8", "resume=auto")
    assert "resuming after step 4" in done.stdout
    assert {path.name for path in checkpoints.glob("step-*")} == {
        *("step-000000006", "step-000000006.bad", "step-000000008", "step-000000900.bak")
    }


@pytest.mark.parametrize(
    "name", ["experiment/notes", "configs/config.yaml", "configs/x.yaml", "data/digits/prepared/x"]
)
def test_a_pipe_in_the_project_is_named_by_the_command(own_project: Project, name: str) -> None:
    settings = ("training.max_steps=2", "output.trace=false")
    assert own_project.train(*settings, "run_dir=runs/first").returncode == 0
    (own_project.path / name).unlink(missing_ok=True)
    os.mkfifo(own_project.path / name)
    (line,) = faults(own_project.train(*settings, "run_dir=runs/second"))
    assert f"{name} is a named pipe: expected a file" in line


def test_what_torch_tells_of_a_users_fault_is_a_line_with_the_remedy(own_project: Project) -> None:
    done = own_project.train("model=resnet18", "training.batch_size=1", "training.max_steps=1")
    (line,) = faults(done)
    assert line.startswith("error: Expected more than 1 value per channel")
    assert line.endswith("other batch_size, drop_last=true")
    old = "logits = self.model(images)\n"
    own_project.edit("experiment/task.py", old, f"{old[:-1]} + torch.empty(10**15)[0]\n")
    (line,) = faults(own_project.train("training.max_steps=1"))
    assert "t allocate memory" in line
    assert "in a training step: smaller training.batch_size, or more training.shards" in line


@pytest.mark.parametrize(
    ("file", "old", "remedy"),
    [
        ("task.py", "logits = self.model(images).float()\n", "smaller evaluation.batch_size"),
        ("task.py", '        self.classes: list[str] = facts["classes"]\n', "a smaller model"),
        ("sources.py", '    facts: Facts = {\n        "source": "scikit', "in preparing the data"),
    ],
)
def test_too_little_memory_is_told_with_the_setting_that_helps(
    own_project: Project, file: str, old: str, remedy: str
) -> None:
    too_large = "torch.empty(10**15)\n"
    indented = " " * (len(old) - len(old.lstrip()) or 8) + too_large
    new = old + indented if old.endswith("\n") else indented + old
    own_project.edit(f"experiment/{file}", old, new)
    (line,) = faults(own_project.train("training.max_steps=2", "evaluation.every=1"))
    assert "t allocate memory" in line
    assert remedy in line


def test_a_resume_with_nothing_to_resume_says_so_and_starts_anew(own_project: Project) -> None:
    settings = ("training.max_steps=1", "output.trace=false")
    new = "a new training starts\n"
    done = own_project.train(*settings, "resume=auto", "run_dir=runs/mispelt")
    path = own_project.path / "runs"
    assert done.returncode == 0
    assert f"resume=auto: there is no {path}/mispelt: {new}" in done.stdout
    (path / "empty").mkdir()
    done = own_project.train(*settings, "resume=auto", "run_dir=runs/empty")
    assert f"resume=auto: {path}/empty has no checkpoint: {new}" in done.stdout
    (path / "latest").unlink()
    (path / "latest").symlink_to("gone/run")
    done = own_project.train(*settings, "resume=auto")
    assert done.returncode == 0
    assert f"resume=auto: {path}/latest leads to gone/run, which is not there: {new}" in done.stdout
    done = own_project.train("training.max_steps=2", "output.trace=false", "resume=auto")
    assert "resuming after step 1" in done.stdout
    assert "resume=auto: " not in done.stdout


def test_prepared_data_follow_a_setting_and_a_module_that_make_them(own_project: Project) -> None:
    """An author's source may take settings, and may import what it needs."""
    data, source = "experiment/data.py", "experiment/sources.py"
    own_project.edit(data, "](folders.raw))", "](folders.raw, settings))")
    own_project.edit(source, "def digits(folder: Path)", "def digits(folder: Path, mine: object)")
    own_project.edit(
        source, "import numpy as np\n", "import numpy as np\nfrom experiment import helper\n"
    )
    facts = '    facts: Facts = {\n        "source": "scikit'
    fewer = "    table = table[: helper.FIRST - 100 * mine.shift]\n"
    own_project.edit(source, facts, fewer + facts)
    helper = own_project.path / "experiment" / "helper.py"
    samples = []
    for first, shift in ((1000, 0), (1000, 1), (900, 1), (900, 1)):
        helper.write_text(f"FIRST = {first}\n")
        done = own_project.train("--conditions", f"dataset.shift={shift}")
        samples.append(json.loads(done.stdout)["dataset"]["samples"])
    assert samples == [1000, 900, 800, 800]


def test_prepared_data_follow_the_code_that_makes_them(own_project: Project) -> None:
    before = own_project.train("--conditions").stdout
    own_project.edit("experiment/sources.py", '"maximum": 16', '"maximum": 8')
    after = own_project.train("--conditions").stdout
    own_project.run("rm", "-r", "data")
    assert own_project.train("--conditions").stdout == after != before


def test_a_checkpoint_of_another_model_is_one_line(own_project: Project) -> None:
    assert own_project.train("run_dir=runs/a", *SHORT).returncode == 0
    own_project.edit("experiment/model.py", "nn.Flatten(), ", "nn.Flatten(), nn.Identity(), ")
    (line,) = faults(own_project.train("run_dir=runs/a", "resume=auto"))
    assert "other code (experiment/model.py changed)" in line
    done = own_project.train("run_dir=runs/a", "resume=auto", "resume_changed_code=true")
    assert "is of another model" in faults(done)[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {name: a", "claims.yaml"),
        ("[]", "at least 1 item"),
        ("- {name: x, text: y, arguments: a=b, metric: m, seeds: 42}", "0.seeds"),
        ("- {name: ../x, text: y, arguments: [], metric: m, seeds: [1]}", "0.name"),
        ("- &a {name: x, text: y, arguments: [], metric: m, seeds: [1]}\n- *a", "same name"),
    ],
)
def test_mistakes_in_claims_are_lines(own_project: Project, text: str, words: str) -> None:
    (own_project.path / "configs" / "claims.yaml").write_text(text)
    assert words in " ".join(faults(own_project.module("repro", "verify")))


@pytest.mark.parametrize("checkpoint", ["nowhere", "results"])
def test_evaluating_what_is_no_checkpoint(project: Project, checkpoint: str) -> None:
    done = project.module("experiment.evaluate", "--checkpoint", checkpoint)
    assert "is no checkpoint" in faults(done)[0]


@pytest.mark.parametrize("command", [["experiment.train"], ["repro", "verify"]])
def test_ctrl_c_shows_no_traceback_at_any_moment(own_project: Project, command: list[str]) -> None:
    """Also while modules are imported, which takes a second or two."""
    for seconds in (0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 0.7, 1.0, 1.2, 1.4, 1.5, 1.6, 1.7, 2.0):
        process = subprocess.Popen(
            [VENV / "bin" / "python", "-m", *command],
            cwd=own_project.path,
            env=clean_environ(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A job in the background of a shell ignores SIGINT, and hands that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=HANGS)
        # Python's own first moments, before it has read a line of ours, are not ours to change.
        # (The files *.pth in site-packages belong to them: `site` runs them.)
        starting = "<frozen site>" in error
        ours = not starting and (str(own_project.path) in error or "site-packages" in error)
        if process.returncode == 2 and error.startswith("error: "):
            continue  # it had come to its end by itself: nothing is recorded
        said = error in ("", "interrupted (a training goes on with resume=auto)\n")
        assert said or not ours, (seconds, error)
        if said or ours:
            assert process.returncode in (-signal.SIGINT, 130), (seconds, error)


def test_a_python_without_the_packages_is_told_what_to_do(own_project: Project) -> None:
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or "python3"
    for module in ("experiment.train", "repro"):
        done = own_project.run(python, "-I", "-c", "import sys; print(sys.prefix)")
        assert done.stdout.strip() != str(VENV)
        (line,) = faults(own_project.run(python, "-m", module))
        assert "make setup" in line
        (line,) = faults(own_project.run("python", "-S", "-m", module))
        assert line.endswith("leave out -S")


def test_a_finished_run_is_left_alone(own_project: Project) -> None:
    settings = ("run_dir=runs/done", "training.max_steps=3")
    assert own_project.train(*settings).returncode == 0
    run = own_project.path / "runs" / "done"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = own_project.train("run_dir=runs/done", "resume=auto", "training.max_steps=2")
    assert done.returncode == 0, done.stderr
    assert "nothing is left to train" in done.stdout
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_each_checkpoint_has_its_own_metrics(own_project: Project) -> None:
    settings = ("run_dir=runs/two", "output.checkpoint_every=2", "training.max_steps=4")
    assert own_project.train(*settings).returncode == 0
    evaluate = ("experiment.evaluate", "--checkpoint")
    run = own_project.path / "runs" / "two"
    for checkpoint in sorted((run / "checkpoints").glob("step-*")):
        assert own_project.module(*evaluate, str(checkpoint)).returncode == 0
    steps = {path.name: json.loads(path.read_text())["step"] for path in run.glob("metrics*.json")}
    assert steps == {"metrics.json": 4, "metrics-last.json": 4, "metrics-step-2.json": 2}
