"""What is done to an image when it is read: crops, flips, light and normalisation, with torchvision's names.

Images are float32 of shape (channels, height, width), from 0 to 1, as arrays or tensors, and stay what they are.
Random transforms draw numbers that belong to the item and the pass, so a run repeats with any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hal
from hal.errors import ShapeError
from nn.data.randomness import Draws, draws

Image = NDArray[np.float32]
Size = int | tuple[int, int]


class Transform:
    """Called with an image, gives another. A subclass gives `apply(image, draws)`, on arrays."""

    def apply(self, image: Image, draws: Draws) -> Image:
        """The new image; `image` must not be changed."""
        raise NotImplementedError(f"{type(self).__name__} has no apply: write what it does to an image")

    def __call__(self, image: Any) -> Any:
        if isinstance(image, hal.Tensor):
            new = self.apply(image.detach().cpu().numpy(), draws())
            return hal.tensor(np.ascontiguousarray(new), device=image.device)
        return self.apply(np.asarray(image), draws())

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


class Compose(Transform):
    """One after the other. What is no `Transform` is called with what came before. Source: torchvision's Compose."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = list(transforms)

    def apply(self, image: Image, draws: Draws) -> Image:
        for transform in self.transforms:
            image = transform.apply(image, draws) if isinstance(transform, Transform) else transform(image)
        return image


class ToTensor(Transform):
    """uint8 (height, width, channels) or (height, width), as cameras and Pillow have it, to float32 from 0 to 1.

    What is floating already is passed on. Source: torchvision.transforms.ToTensor.
    """

    def apply(self, image: Any, draws: Draws) -> Image:
        if image.dtype != np.uint8:
            return np.asarray(image, np.float32)
        planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        return np.divide(planes, np.float32(255), dtype=np.float32)


class Normalize(Transform):
    """(image - mean) / std, for each channel. Source: torchvision.transforms.Normalize.

    Raises:
        ValueError: a deviation of zero.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if 0 in std:
            raise ValueError(f"Normalize needs deviations that are not zero, got std={tuple(std)}")
        self.mean, self.std = tuple(mean), tuple(std)

    def apply(self, image: Image, draws: Draws) -> Image:
        mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (self.mean, self.std))
        if len(self.mean) not in (1, image.shape[0]):
            raise ShapeError(f"Normalize has {len(self.mean)} means, the image has shape {image.shape}")
        return (image - mean) / std


class Standardize(Transform):
    """Zero mean and unit deviation of each image by itself; nearly even images are not blown up.

    Source: TensorFlow, tf.image.per_image_standardization: divided by max(std, 1 / sqrt(elements)).
    """

    def apply(self, image: Image, draws: Draws) -> Image:
        spread = max(float(image.std()), image.size**-0.5)
        return (image - np.float32(image.mean())) / np.float32(spread)


class CenterCrop(Transform):
    """The middle of the image. Source: torchvision.transforms.CenterCrop.

    Raises:
        ShapeError: when called with an image that is smaller.
    """

    def __init__(self, size: Size) -> None:
        self.size = _pair(size)

    def apply(self, image: Image, draws: Draws) -> Image:
        down, right = _room("CenterCrop", image, self.size)
        return _crop(image, down // 2, right // 2, self.size)


class RandomCrop(Transform):
    """A part of the image at a random place. Source: torchvision.transforms.RandomCrop.

    Args:
        size: of the part.
        padding: zeros that are put around the image first.

    Raises:
        ShapeError: when called with an image that is smaller.
    """

    def __init__(self, size: Size, padding: int = 0) -> None:
        self.size, self.padding = _pair(size), padding

    def apply(self, image: Image, draws: Draws) -> Image:
        if self.padding:
            image = np.pad(image, ((0, 0), (self.padding, self.padding), (self.padding, self.padding)))
        down, right = _room("RandomCrop", image, self.size)
        return _crop(image, draws.integer(down + 1), draws.integer(right + 1), self.size)


class RandomHorizontalFlip(Transform):
    """Left and right are exchanged with probability `p`. Source: torchvision.transforms.RandomHorizontalFlip."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = _probability("RandomHorizontalFlip", p)

    def apply(self, image: Image, draws: Draws) -> Image:
        return image[:, :, ::-1] if draws.uniform() < self.p else image


class RandomVerticalFlip(Transform):
    """Up and down are exchanged with probability `p`. Source: torchvision.transforms.RandomVerticalFlip."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = _probability("RandomVerticalFlip", p)

    def apply(self, image: Image, draws: Draws) -> Image:
        return image[:, ::-1] if draws.uniform() < self.p else image


class ColorJitter(Transform):
    """Brightness and contrast are changed by random factors. Source: torchvision.transforms.ColorJitter.

    Args:
        brightness, contrast: a factor from 1 - x to 1 + x, or between two given ones; 0 changes nothing.

    Raises:
        ValueError: a negative factor.
    """

    def __init__(
        self, brightness: float | tuple[float, float] = 0.0, contrast: float | tuple[float, float] = 0.0
    ) -> None:
        self.brightness, self.contrast = _factors("brightness", brightness), _factors("contrast", contrast)

    def apply(self, image: Image, draws: Draws) -> Image:
        image = np.clip(image * np.float32(draws.uniform(*self.brightness)), 0, 1)
        grey = _grey(image)
        return np.clip(grey + (image - grey) * np.float32(draws.uniform(*self.contrast)), 0, 1)


def _grey(image: Image) -> np.float32:
    """The mean light of an image. Source: ITU-R BT.601, the weights of red, green and blue."""
    if image.shape[0] != 3:
        return np.float32(image.mean())
    return np.float32(np.dot(image.mean(axis=(1, 2)), np.array([0.2989, 0.587, 0.114], np.float32)))


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _room(who: str, image: Image, size: tuple[int, int]) -> tuple[int, int]:
    """How many places there are to go down and right."""
    down, right = image.shape[1] - size[0], image.shape[2] - size[1]
    if down < 0 or right < 0:
        raise ShapeError(f"{who} needs an image of at least {size[0]} x {size[1]}, got shape {image.shape}")
    return down, right


def _crop(image: Image, top: int, left: int, size: tuple[int, int]) -> Image:
    return image[:, top : top + size[0], left : left + size[1]]


def _probability(who: str, p: float) -> float:
    if not 0 <= p <= 1:
        raise ValueError(f"{who} needs p= from 0 to 1, got {p}")
    return p


def _factors(name: str, given: float | tuple[float, float]) -> tuple[float, float]:
    low, high = given if isinstance(given, tuple) else (max(0.0, 1 - given), 1 + given)
    if (not isinstance(given, tuple) and given < 0) or not 0 <= low <= high:
        raise ValueError(f"ColorJitter needs {name}= of 0 or more, or two factors in order, got {given}")
    return low, high
