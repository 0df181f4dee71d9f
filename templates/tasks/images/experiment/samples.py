"""Make samples of images: in memory or from files, as floats from 0 to 1, augmented or not."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

Sample = tuple[Tensor, Tensor]  # image, label


@dataclass(frozen=True)
class Augmentation:
    """How images are changed at random: the largest shift in pixels, and whether to mirror half."""

    shift: int = 0
    flip: bool = False


class Images(Dataset[Sample]):
    """Images in memory, uint8; a sample is float32 in 0 to 1 with its label."""

    def __init__(
        self, images: Tensor, labels: Tensor, maximum: int, augmentation: Augmentation
    ) -> None:
        self.padded = padded(images, augmentation)
        self.labels = labels
        self.maximum = maximum
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        image = augment(self.padded[index], self.augmentation)
        return image.float() / self.maximum, self.labels[index]


class ImageFiles(Dataset[Sample]):
    """Images read when they are needed, upright, as RGB of size x size pixels, with labels."""

    def __init__(
        self, paths: list[Path], labels: Tensor, size: int, augmentation: Augmentation
    ) -> None:
        self.paths = paths
        self.labels = labels
        self.size = size
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        from PIL import Image, ImageOps  # only here: the other data sets need no Pillow

        with Image.open(self.paths[index]) as file:
            ImageOps.exif_transpose(file, in_place=True)  # as its camera was held
            # Pillow resizes in integers: the same bits on every CPU.
            size = (self.size, self.size)
            pixels = np.array(file.convert("RGB").resize(size, Image.Resampling.BILINEAR))
        image = padded(torch.from_numpy(pixels).permute(2, 0, 1), self.augmentation)
        return augment(image, self.augmentation).float() / 255, self.labels[index]


def padded(images: Tensor, augmentation: Augmentation) -> Tensor:
    """Return the images with a black margin, as wide as `augment` may move them."""
    return functional.pad(images, (augmentation.shift,) * 4)


def augment(image: Tensor, augmentation: Augmentation) -> Tensor:
    """Cut the margin off a padded image, moved at random, and mirror half of the images.

    Draws from torch's global generator, which is seeded for each sample
    (repro/training/loading.py).
    """
    shift = augmentation.shift
    if shift:
        height = image.shape[-2] - 2 * shift
        width = image.shape[-1] - 2 * shift
        y, x = torch.randint(2 * shift + 1, (2,)).tolist()
        image = image[:, y : y + height, x : x + width]
    if augmentation.flip and torch.rand(()) < 0.5:
        image = image.flip(-1)
    return image
