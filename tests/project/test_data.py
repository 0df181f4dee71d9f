"""Data sets and models beside the default: real formats, real commands, a server on loopback."""

import gzip
import hashlib
import io
import os
import re
import shutil
import signal
import struct
import subprocess
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from conftest import HANGS, VENV, Project, clean_environ, faults, last_line
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import resnet18

SHORT = ("training.max_steps=2", "training.batch_size=8", "device=cpu", "num_workers=0")


@dataclass
class Server:
    """Serves `files`; the next `cut` answers break off half-way, with `stall` they hang there."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut: int = 0
    stall: bool = False
    requests: int = 0
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests += 1
            content = state.files[self.path.strip("/")]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if state.stall or state.cut > 0:
                state.cut -= 1
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                if state.stall:
                    time.sleep(60)
                return
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{http.server_address[1]}/"
    yield state
    http.shutdown()


def idx(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return gzip.compress(header + values.tobytes())


def serve_fashion_mnist(project: Project, server: Server) -> None:
    """40 training and 16 test samples in the real format, and the project pointed to them."""
    random = np.random.default_rng(0)
    for name, count in (("train", 40), ("t10k", 16)):
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        server.files[f"{name}-images-idx3-ubyte.gz"] = idx(images)
        server.files[f"{name}-labels-idx1-ubyte.gz"] = idx(np.arange(count, dtype=np.uint8) % 10)
    source = project.path / "experiment" / "sources.py"
    text = re.sub(r'FASHION_MNIST = ".*"', f'FASHION_MNIST = "{server.url}"', source.read_text())
    for name, content in server.files.items():
        digest, stem = hashlib.sha256(content).hexdigest(), name.removesuffix(".gz")
        text, count = re.subn(rf'("{stem}": ")[0-9a-f]{{64}}', rf"\g<1>{digest}", text)
        assert count == 1
    source.write_text(text)


def serve_cifar10(project: Project, server: Server) -> bytes:
    """5 x 8 training and 8 test samples; returns the bytes of the test batch."""
    random = np.random.default_rng(0)
    batches = {}
    for name in [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]:
        rows = random.integers(0, 256, (8, 3073), np.uint8)
        rows[:, 0] %= 10
        batches[name] = rows.tobytes()
    classes = "airplane automobile bird cat deer dog frog horse ship truck"
    batches["batches.meta.txt"] = ("\n".join(classes.split()) + "\n\n").encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in batches.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    server.files["cifar-10-binary.tar.gz"] = packed.getvalue()
    source = project.path / "experiment" / "sources.py"
    text = re.sub(r'CIFAR10 = ".*/', f'CIFAR10 = "{server.url}', source.read_text())
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    text, count = re.subn('CIFAR10_SHA256 = ".*"', f'CIFAR10_SHA256 = "{digest}"', text)
    assert count == 1
    source.write_text(text)
    return batches["test_batch.bin"]


def bits(output: str) -> str:
    return re.findall(r"(?m)^bits (\w{64})$", output)[0]


def test_fashion_mnist_is_downloaded_once_and_trains(own_project: Project, server: Server) -> None:
    serve_fashion_mnist(own_project, server)
    recipe = ("experiment=transformer_fashion_mnist", *SHORT, "model.depth=1", "model.width=16")
    done = own_project.train(*recipe)
    assert done.returncode == 0, done.stderr
    server.files.clear()  # from here on a download would fail
    again = own_project.train(*recipe, "num_workers=2")
    assert again.returncode == 0, again.stderr
    assert bits(again.stdout) == bits(done.stdout)
    assert server.requests == 4


def test_cifar10_trains_resnet18_and_the_test_batch_is_the_test_split(
    own_project: Project, server: Server
) -> None:
    test_batch = serve_cifar10(own_project, server)
    done = own_project.train("experiment=resnet18_cifar10", *SHORT)
    assert done.returncode == 0, done.stderr
    done = own_project.module("experiment.evaluate")
    assert done.returncode == 0, done.stderr
    program = (
        "import torch; from experiment.config import LOADER, ROOT\n"
        "from repro.tasks.author import datasets_of, preparation\n"
        "config = LOADER.load(['dataset=cifar10'])\n"
        "source = preparation(ROOT, config)\n"
        "test = datasets_of(ROOT, config, source, source.read())['test']\n"
        "image, label = test[3]\n"
        "print(len(test), int(label), (image * 255).round().byte().flatten().tolist()[:6])"
    )
    shown = own_project.run("python", "-c", program).stdout
    row = test_batch[3 * 3073 :]
    assert last_line(shown) == f"8 {row[0]} {list(row[1:7])}"  # 40 samples: a class may have none


def test_a_broken_connection_is_tried_again(own_project: Project, server: Server) -> None:
    serve_cifar10(own_project, server)
    server.cut = 2
    done = own_project.module("experiment.prepare", "dataset=cifar10")
    assert done.returncode == 0, done.stderr
    assert "trying again" in done.stdout
    assert server.requests == 3


def test_after_a_download_that_was_killed_the_next_one_starts_clean(
    own_project: Project, server: Server
) -> None:
    serve_cifar10(own_project, server)
    server.stall = True
    process = subprocess.Popen(
        [VENV / "bin" / "python", "-m", "experiment.prepare", "dataset=cifar10"],
        cwd=own_project.path,
        env=clean_environ(),
        stdout=subprocess.DEVNULL,
    )
    raw = own_project.path / "data" / "cifar10" / "raw"
    deadline = time.monotonic() + HANGS
    while not list(raw.glob(".*.partial")):
        assert time.monotonic() < deadline, "experiment.prepare hangs"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (raw / "cifar-10-binary.tar.gz").exists()
    server.stall = False
    (left,) = raw.glob(".*.partial")
    os.utime(left, (0, 0))  # a younger one may be another process's
    done = own_project.module("experiment.prepare", "dataset=cifar10")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in raw.iterdir()] == ["cifar-10-binary.tar.gz"]


def test_what_cannot_be_downloaded_is_one_line(own_project: Project, server: Server) -> None:
    serve_cifar10(own_project, server)
    prepare = ("experiment.prepare", "dataset=cifar10")
    raw = own_project.path / "data" / "cifar10" / "raw"
    right = server.files["cifar-10-binary.tar.gz"]
    server.files["cifar-10-binary.tar.gz"] = right[:-1] + b"x"
    (line,) = faults(own_project.module(*prepare))
    assert re.search("SHA-256 .* not the file it was; .* put the file at", line)
    server.cut = 99
    (line,) = faults(own_project.module(*prepare))
    assert f"of {len(right)} bytes" in line
    own_project.edit("experiment/sources.py", server.url, "http://127.0.0.1:9/")
    (line,) = faults(own_project.module(*prepare))
    assert "put the file at" in line
    assert not list(raw.iterdir())
    (raw / "cifar-10-binary.tar.gz").write_bytes(right[:1000])  # by hand, but cut
    (line,) = faults(own_project.module(*prepare))
    assert "move the file away" in line
    (raw / "cifar-10-binary.tar.gz").write_bytes(right)
    assert own_project.module(*prepare).returncode == 0


# image_folder --------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of 30 pictures, nested, several formats, odd names."""
    random = np.random.default_rng(1)
    root = tmp_path / "my pictures é"
    odd = [b"a b.png", "ü🙂.png".encode(), b"new\nline.png", b"\xff\xfe.png", b"$(touch hit);.png"]
    for number in range(60):
        folder = os.fsencode(root) + (b"/cat", b"/dog/deep/er")[number % 2]
        os.makedirs(folder, exist_ok=True)
        name = odd[number // 2] if number // 2 < len(odd) else b"%03d.jpg" % number
        pixels = random.integers(0, 256, (20 + number, 30, 3), np.uint8)
        Image.fromarray(pixels).save(os.fsdecode(folder + b"/" + name))
    Image.fromarray(pixels[..., 0]).convert("P").save(root / "cat" / "palette.gif")
    (root / "cat" / ".DS_Store").write_bytes(b"no image")
    return root


def test_an_image_folder_trains_with_any_number_of_workers(
    own_project: Project, pictures: Path
) -> None:
    settings = ("dataset=image_folder", f"image_dir={pictures}", "dataset.size=16", *SHORT)
    settings = (*settings, "dataset.shift=2", "model.width=4")
    runs = [own_project.train(*settings, f"num_workers={n}") for n in (0, 2)]
    for done in runs:
        assert done.returncode == 0, done.stderr
    assert bits(runs[0].stdout) == bits(runs[1].stdout)
    done = own_project.module("experiment.evaluate")
    assert done.returncode == 0, done.stderr
    moved = pictures.rename(pictures.with_name("elsewhere"))
    (moved / "cat").rename(moved / "c")
    (moved / "cat").symlink_to("c")  # a link to a folder; hidden ones do not count
    (moved / "c").rename(moved / ".c")
    (moved / "cat").unlink()
    (moved / "cat").symlink_to(".c")
    done = own_project.train(*settings, f"image_dir={moved}")
    assert done.returncode == 0, done.stderr
    assert bits(done.stdout) == bits(runs[0].stdout)


def test_changed_missing_and_extra_images_are_named(own_project: Project, pictures: Path) -> None:
    settings = ("dataset=image_folder", f"image_dir={pictures}", "model.width=4", *SHORT)
    assert own_project.module("experiment.prepare", *settings[:2]).returncode == 0
    shutil.copy(pictures / "cat" / "a b.png", pictures / "cat" / "extra.png")
    (pictures / "dog" / "deep" / "er" / "011.jpg").unlink()
    changed = pictures / "cat" / "010.jpg"
    changed.write_bytes(changed.read_bytes() + b"\0")
    lines = faults(own_project.train(*settings))
    assert [re.findall(": (changed|extra|missing),", line) for line in lines] == [
        ["changed"],
        ["extra"],
        ["missing"],
    ]
    assert "010.jpg" in lines[0]
    assert "extra.png" in lines[1]
    assert "011.jpg" in lines[2]
    own_project.edit("experiment/data.py", '"""Prepare data sets', '"""Prepare  data sets')
    assert len(faults(own_project.train(*settings))) == 3  # code that changed excuses nothing
    assert own_project.module("experiment.prepare", *settings[:2]).returncode == 0
    assert own_project.train(*settings).returncode == 0


def deep_colours() -> bytes:
    """A PNG of 2 x 1 pixels with 16 bits for each of red, green and blue: Pillow writes none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">6H", *range(0, 4096, 700)))
    parts = chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_what_is_no_image_is_named(own_project: Project, pictures: Path) -> None:
    whole = (pictures / "cat" / "010.jpg").read_bytes()
    (pictures / "cat" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "cat" / "notes.txt").write_text("no image")
    (pictures / "dog" / "empty.png").write_bytes(b"")
    (pictures / "loose.jpg").write_bytes(whole)
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(deep).save(pictures / "dog" / "deep.png")
    (pictures / "dog" / "rgb.png").write_bytes(deep_colours())
    grey = [Image.new("L", (8, 8), level) for level in (0, 200)]
    grey[0].save(pictures / "dog" / "stack.tif", save_all=True, append_images=grey[1:])
    (pictures / "bird" / ".hidden").mkdir(parents=True)
    prepare = ("experiment.prepare", "dataset=image_folder")
    lines = faults(own_project.module(*prepare, f"image_dir={pictures}"))
    assert len(lines) == 8
    named = ("half.jpg", "notes.txt", "empty.png", "loose.jpg", "deep.png: more than 8 bits")
    for name in (*named, "rgb.png: more than 8 bits", "stack.tif: several pages", "bird: no files"):
        assert sum(name in line for line in lines) == 1, name
    assert not (own_project.path / "data").exists()
    (line,) = faults(own_project.module(*prepare))
    assert "image_dir=PATH" in line
    for parts in (("train", "val"), ("Testing", "Training"), ("data",)):
        root = pictures.parent / parts[0]
        for name in parts:
            shutil.copytree(pictures / "dog" / "deep", root / name)
        (line,) = faults(own_project.module(*prepare, f"image_dir={root}"))
        assert f"found {', '.join(parts)}; expected a folder for each of two classes" in line
    (line,) = faults(own_project.module(*prepare, "image_dir=nowhere"))
    assert "no such folder" in line


def test_what_desktops_and_git_leave_among_images_is_named_with_the_remedy(
    own_project: Project, pictures: Path
) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"
    for place in (pictures, pictures / "cat"):
        (place / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    for name in ("010.jpg", "012.jpg"):
        (pictures / "cat" / name).write_text(pointer)
    settings = ("dataset=image_folder", f"image_dir={pictures}")
    lines = faults(own_project.module("experiment.prepare", *settings))
    assert len(lines) == 2
    (windows,) = [line for line in lines if "Thumbs.db" in line]
    assert windows.endswith("left by a file manager, and no data: delete it")
    (lfs,) = [line for line in lines if "010.jpg" in line]
    assert "012.jpg" in lfs
    assert "a pointer of git LFS in the place of the content: git lfs pull gets it" in lfs


def test_another_image_dir_is_told_by_its_name(own_project: Project, pictures: Path) -> None:
    settings = ("dataset=image_folder", "model.width=4", *SHORT)
    assert own_project.train(*settings, f"image_dir={pictures}").returncode == 0
    other = pictures.parent / "other"
    shutil.copytree(pictures, other)
    for path in other.rglob("*.jpg"):
        path.rename(path.with_suffix(".jpeg"))
    (line,) = faults(own_project.train(*settings, f"image_dir={other}"))
    assert line.startswith(f"error: image_dir={other} has other files (")
    assert f"than {pictures}, which " in line


def test_resuming_with_other_images_is_refused(own_project: Project, pictures: Path) -> None:
    """The split would be another one: some that were trained with would be tested with."""
    settings = ("dataset=image_folder", f"image_dir={pictures}", "model.width=4", *SHORT)
    assert own_project.train(*settings, "run_dir=runs/mine").returncode == 0
    (pictures / "cat" / "010.jpg").unlink()
    assert own_project.module("experiment.prepare", *settings[:2]).returncode == 0
    again = ("run_dir=runs/mine", "resume=auto", "training.max_steps=3")
    lines = faults(own_project.train(*settings, *again))
    assert "was trained with other settings or data" in lines[0]
    assert lines[1:] == [
        "error: data: not the files that it was trained with: put them back, or train anew"
    ]


def test_photos_stand_upright_and_are_as_large_in_training_as_in_tests(
    own_project: Project, tmp_path: Path
) -> None:
    upright = Image.new("RGB", (8, 8), "red")
    upright.paste("blue", (0, 4, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    upright.rotate(90).save(tmp_path / "lying.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    program = (
        "import sys, torch; from pathlib import Path\n"
        "from experiment.samples import Augmentation, ImageFiles\n"
        "paths, labels = [Path(p) for p in sys.argv[1:]], torch.zeros(2)\n"
        "lying, upright = (image for image, _ in ImageFiles(paths, labels, 8, Augmentation()))\n"
        "print(torch.equal(lying, upright), upright[2, :, 0].tolist())\n"
        "shifted = ImageFiles(paths, labels, 8, Augmentation(1))\n"
        "moved = {tuple(shifted[1][0][0, :, 4].tolist()) for _ in range(50)}\n"
        "print(sorted(moved))"
    )
    paths = [str(tmp_path / name) for name in ("lying.png", "upright.png")]
    done = own_project.run("python", "-c", program, *paths)
    first, second = done.stdout.splitlines()
    assert first == f"True {[0.0] * 4 + [1.0] * 4}", done.stderr
    red = [[1.0] * 4 + [0.0] * 4, [0.0] + [1.0] * 4 + [0.0] * 3, [1.0] * 3 + [0.0] * 5]
    assert second == str(sorted(map(tuple, red)))  # as it is, one down, one up: never larger


def test_classes_may_have_any_names_and_too_few_images(
    own_project: Project, tmp_path: Path
) -> None:
    root, random = tmp_path / "images", np.random.default_rng(0)
    for name in ("$5_$10", os.fsdecode(b"caf\xe9"), "x" * 200, "single"):
        (root / name).mkdir(parents=True)
        for number in range(1 if name == "single" else 12):
            pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    settings = ("dataset=image_folder", f"image_dir={root}", "dataset.size=8", "model.width=4")
    done = own_project.train(*settings, *SHORT)
    assert done.returncode == 0, done.stderr
    done = own_project.module("experiment.evaluate")
    assert done.returncode == 0, done.stderr
    program = (
        "import sys; from experiment.config import LOADER, ROOT\n"
        "from repro.tasks.author import datasets_of, preparation\n"
        "for seed in range(20):\n"
        "    config = LOADER.load([*sys.argv[1:], f'seed={seed}'])\n"
        "    source = preparation(ROOT, config)\n"
        "    datasets_of(ROOT, config, source, source.read())"
    )
    done = own_project.run("python", "-c", program, *settings)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {"warning: no training sample is of 'single'"}


@pytest.mark.parametrize(
    ("count", "most"), [(10_000, 60), pytest.param(100_000, 200, marks=pytest.mark.long)]
)
def test_many_images_are_prepared_in_bounded_memory(
    own_project: Project, tmp_path: Path, count: int, most: int
) -> None:
    root = tmp_path / "many"
    for folder in range(100):
        (root / f"class{folder % 10}" / f"{folder}").mkdir(parents=True)
    for number in range(10):  # a file has at most 65,000 names
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    for number in range(count):
        folder = number % 100
        os.link(
            tmp_path / f"{number % 10}.png",
            root / f"class{folder % 10}" / f"{folder}" / f"{number}.png",
        )
    command = [VENV / "bin" / "python", "-m", "experiment.prepare", "dataset=image_folder"]
    peaks = []
    for image_dir in (root / "class0" / "0", root):  # a hundredth, then all
        if image_dir != root:
            for name in "ab":
                (image_dir / name).mkdir()
            for number, path in enumerate(list(image_dir.glob("*.png"))):
                path.rename(image_dir / "ab"[number % 2] / path.name)
        process = subprocess.Popen(
            [*command, f"image_dir={image_dir}"],
            cwd=own_project.path,
            env=clean_environ(),
            stdout=subprocess.PIPE,
        )
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        peaks.append(usage.ru_maxrss / 1024)
    assert peaks[1] - peaks[0] < most, peaks  # MiB; the manifest's names and digests


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("table[:, 64].contiguous()", "table[:-3, 64].contiguous()"),
        ("table[:, 64].contiguous()", "table[:, 64] + 1"),
        ("table[:, 64].contiguous()", "table[:, 64].float()"),
        ("to(torch.uint8).reshape(-1, 1, 8, 8)", "div(16).reshape(-1, 1, 8, 8)"),
        ("to(torch.uint8).reshape(-1, 1, 8, 8)", "to(torch.uint8).reshape(-1, 8, 8)"),
        ('        "maximum": 16,\n', ""),
        ('        "maximum": 16,\n', '        "maximum": 16,\n        "test_samples": 100,\n'),
    ],
)
def test_a_source_whose_data_do_not_fit_together_is_one_line(
    own_project: Project, old: str, new: str
) -> None:
    own_project.edit("experiment/sources.py", old, new)
    if "test_samples" in new:
        (line,) = faults(own_project.train())
        assert "brings test samples: leave test_fraction out" in line
        return
    (line,) = faults(own_project.module("experiment.prepare"))
    assert "expected uint8 [n, channels, height, width], int64 [n], facts with classes" in line
    assert not list((own_project.path / "data").rglob("*.safetensors"))


# Models --------------------------------------------------------------------------------------


def test_every_recipe_composes(own_project: Project) -> None:
    recipes = sorted(path.stem for path in (own_project.path / "configs/experiment").glob("*.yaml"))
    program = (
        "import sys; from experiment.config import LOADER\n"
        "for name in sys.argv[1:]: print(LOADER.load([f'experiment={name}', 'image_dir=x']).name)"
    )
    done = own_project.run("python", "-c", program, *recipes)
    assert done.stdout.split() == recipes, done.stderr


def test_the_device_in_config_yaml_counts(own_project: Project) -> None:
    own_project.edit("configs/config.yaml", "device: cpu  ", "device: cuda ")
    program = "from experiment.config import LOADER; print(LOADER.load([]).device)"
    assert own_project.run("python", "-c", program).stdout == "cuda\n"


def test_what_the_environment_offers_is_taken_by_those_who_need_it(project: Project) -> None:
    short = ("training.max_steps=1", "run_dir=runs/offered")
    done = project.train(*short, WEIGHTS="/no/such/file", IMAGE_DIR="")
    assert done.returncode == 0, done.stderr
    (line,) = faults(project.train("weights=/no/such/file"))
    assert "weights=PATH needs model=resnet18" in line
    (line,) = faults(project.train("model=resnet18", WEIGHTS="/no/such/file"))
    assert "weights_sha256" in line


def test_a_training_may_start_from_weights_of_a_file(own_project: Project, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "weights 1.safetensors"
    save_file(resnet18().state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    settings = ("model=resnet18", *SHORT, f"weights={path}", "training.max_steps=1")
    (line,) = faults(own_project.train(*settings))
    assert "weights_sha256" in line
    (line,) = faults(own_project.train(*settings, "model.weights_sha256=" + "0" * 64))
    assert digest in line
    torch.save(resnet18().state_dict(), tmp_path / "weights.pth")
    pickled = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    wrong = (f"weights={tmp_path}/weights.pth", f"model.weights_sha256={pickled}")
    (line,) = faults(own_project.train(*settings, *wrong))
    assert "convert it once: safetensors.torch.save_file(" in line
    given = own_project.train(*settings, f"model.weights_sha256={digest}", "run_dir=runs/given")
    assert given.returncode == 0, given.stderr
    assert "random: conv1.weight fc.bias fc.weight" in given.stdout
    path.rename(path.with_name("moved"))  # the checkpoint holds the weights
    done = own_project.module("experiment.evaluate", "--checkpoint", "runs/given/checkpoints/last")
    assert done.returncode == 0, done.stderr


def test_compiling_is_for_the_native_profile_only(own_project: Project) -> None:
    settings = ("training.compile=true", "model.width=8", "dataset.shift=0")
    (line,) = faults(own_project.train(*settings))
    assert "profile=native" in line
    settings = (*settings, "profile=native", "training.max_steps=22", "output.checkpoint_every=20")
    done = own_project.train(*settings, "run_dir=runs/whole")
    if shutil.which("g++") or shutil.which("clang++"):
        assert done.returncode == 0, done.stderr
        # The last step of an epoch is short: by default torch makes kernels for any shape when it
        # meets that one, and a training that is resumed after it has not met it.
        checkpoint = "resume=runs/whole/checkpoints/step-000000020"
        resumed = own_project.train(*settings, "run_dir=runs/resumed", checkpoint)
        assert bits(resumed.stdout) == bits(done.stdout)
    else:
        assert "compiler" in faults(done)[0]


def test_what_an_author_forgot_to_name_is_one_line(own_project: Project) -> None:
    """A data set without augmentation of its own, too: its settings have no shift, no flip."""
    config = own_project.path / "experiment" / "config.py"
    text = config.read_text().replace('Literal["small_cnn"]', 'Literal["small_cnn", "mine"]')
    text = text.replace('Literal["digits"]', 'Literal["digits", "waves"]')
    config.write_text(text.replace("    shift: Annotated[int, Field(ge=0, le=4)]\n", ""))
    digits = (own_project.path / "configs/dataset/digits.yaml").read_text()
    digits = "".join(line for line in digits.splitlines(True) if "shift" not in line)
    (own_project.path / "configs/dataset/digits.yaml").write_text(digits)
    waves = digits.replace("name: digits", "name: waves")
    (own_project.path / "configs/dataset/waves.yaml").write_text(waves)
    assert own_project.train(*SHORT).returncode == 0
    (line,) = faults(own_project.train("dataset=waves", *SHORT))
    assert "dataset=waves: expected it in SOURCES of experiment/sources.py" in line
    old = "    if isinstance(settings, SmallCNN):\n"
    own_project.edit("experiment/model.py", old, old.replace("SmallCNN)", "ResNet18)"))
    (line,) = faults(own_project.train(*SHORT))
    assert "model=small_cnn: expected it in build_model of experiment/model.py" in line


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("model=image_transformer", "model.patch=3"), "divisor of 8 x 8"),
        (("model=image_transformer", "model.heads=5"), "multiple of heads"),
        (("model=resnet18", "model.stem=imagenet"), "channels"),
        (("dataset.flip=true",), "the chosen one does not"),
    ],
)
def test_a_model_that_does_not_fit_is_one_line(
    project: Project, settings: tuple[str, ...], words: str
) -> None:
    (line,) = faults(project.train(*settings, *SHORT))
    assert words in line
