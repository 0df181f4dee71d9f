"""The doctor's answer."""

from conftest import Project


def doctor(project: Project, *options: str, **variables: str) -> list[str]:
    """The faults that it names, after checking its exit code and that each is a line."""
    options = options or ("--environment",)
    done = project.run("python", "-m", "repro", "doctor", *options, **variables)
    *lines, last = [x for x in done.stdout.splitlines() if not x.startswith(("note: ", "reading"))]
    assert done.stderr == "", done.stderr
    assert done.returncode == (1 if lines else 0), done.stdout
    counted = f"{len(lines)} fault{'s' * (len(lines) > 1)}: " if lines else "nothing is wrong: "
    assert last.startswith(counted), done.stdout
    return lines
