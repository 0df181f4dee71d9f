"""Pictures of runs."""

from pathlib import Path

from PIL import Image
from repro.runs.figures import draw


def test_pictures_of_a_run_without_accuracy_with_a_negative_loss_and_many_classes(
    tmp_path: Path,
) -> None:
    """What an author validates is drawn, whatever it is called."""
    steps = [{"step": step, "loss": 1.0 - step} for step in range(1, 5)]
    validation = {"split": "validation", "loss": -0.5, "f1": 0.1}
    epochs = [{"step": step, "epoch": step // 2, **validation} for step in (2, 4)]
    for classes in (2, 40):
        names = [f"class {number}" for number in range(classes)]
        draw(tmp_path, [[3] * classes] * classes, names, steps + epochs)
    with Image.open(tmp_path / "learning_curves.png") as picture:
        assert picture.size == (660, 660)
    assert (tmp_path / "confusion_matrix.png").is_file()
