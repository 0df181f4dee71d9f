"""The README's first command, as a newcomer runs it."""

import shutil
import subprocess
from pathlib import Path

from conftest import ROOT, clean_environ, last_line


def test_make_demo_ends_with_identical() -> None:
    done = subprocess.run(
        ["make", "demo"], cwd=ROOT, env=clean_environ(), capture_output=True, text=True
    )
    name = next(w for w in done.stdout.split() if w.startswith("demo") and w.endswith("/"))
    demo: Path = ROOT / name
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        assert last_line(done.stdout) == "IDENTICAL"
        context = (demo / "runs" / "latest" / "experiment_context.json").read_text()
        assert '"source": "git"' in context
    finally:
        shutil.rmtree(demo)
