"""Transforms of images: what each does, against torchvision's definitions by hand, and random ones that repeat."""

from typing import Any

import numpy as np
import pytest

import hal
from hal.errors import ShapeError
from nn.data import DataLoader, ImageDataset, transforms
from nn.data.randomness import Draws

RNG = np.random.default_rng(0)
IMAGE = RNG.random((3, 6, 5), np.float32)


def test_what_does_not_depend_on_chance() -> None:
    crop = transforms.CenterCrop((4, 3))(IMAGE)
    np.testing.assert_array_equal(crop, IMAGE[:, 1:5, 1:4])
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.1, 0.5)
    normal = transforms.Normalize(mean, std)(IMAGE)
    np.testing.assert_allclose(normal[1], (IMAGE[1] - 0.4) / 0.1, rtol=1e-6)
    assert normal.dtype == np.float32
    even = transforms.Standardize()(IMAGE)
    assert (abs(even.mean()), even.std()) == (pytest.approx(0, abs=1e-6), pytest.approx(1, rel=1e-5))
    flat = transforms.Standardize()(np.full((1, 4, 4), 0.5, np.float32))
    np.testing.assert_array_equal(flat, np.zeros((1, 4, 4)))
    photo = RNG.integers(0, 256, (6, 5, 3)).astype(np.uint8)
    np.testing.assert_allclose(transforms.ToTensor()(photo), photo.transpose(2, 0, 1) / 255, rtol=1e-6)
    assert transforms.ToTensor()(photo[:, :, 0]).shape == (1, 6, 5)


def test_a_tensor_stays_a_tensor_and_an_array_an_array(each_device: hal.Device) -> None:
    flip = transforms.RandomHorizontalFlip(1.0)
    flipped = flip(hal.tensor(IMAGE, device=each_device))
    assert flipped.device == each_device
    np.testing.assert_array_equal(flipped.cpu().numpy(), IMAGE[:, :, ::-1])
    assert isinstance(flip(IMAGE), np.ndarray)


def seen(transform: transforms.Transform, times: int = 400) -> list[Any]:
    return [transform.apply(IMAGE, Draws(0, 0, item)) for item in range(times)]


def test_a_random_crop_takes_every_place_equally_often() -> None:
    padded = np.pad(IMAGE, ((0, 0), (1, 1), (1, 1)))
    places = {(i, j): 0 for i in range(5) for j in range(5)}
    for crop in seen(transforms.RandomCrop((4, 3), padding=1), 2000):
        [place] = [p for p in places if np.array_equal(crop, padded[:, p[0] : p[0] + 4, p[1] : p[1] + 3])]
        places[place] += 1
    assert min(places.values()) > 2000 / 25 * 0.6
    assert max(places.values()) < 2000 / 25 * 1.5


@pytest.mark.parametrize(("make", "axis"), [(transforms.RandomHorizontalFlip, 2), (transforms.RandomVerticalFlip, 1)])
def test_a_flip_comes_as_often_as_it_should(make: Any, axis: int) -> None:
    flipped = sum(np.array_equal(x, np.flip(IMAGE, axis)) for x in seen(make(0.3), 1000))
    kept = sum(np.array_equal(x, IMAGE) for x in seen(make(0.3), 1000))
    assert flipped + kept == 1000
    assert 240 < flipped < 360


def test_light_and_contrast() -> None:
    for image in seen(transforms.ColorJitter(brightness=0.5), 50):
        factors = image[image < 1] / IMAGE[image < 1]
        assert factors.max() - factors.min() < 1e-4
        assert 0.5 - 1e-4 <= factors.min() <= 1.5
    grey = float((IMAGE.mean((1, 2)) * [0.2989, 0.587, 0.114]).sum())
    dull = transforms.ColorJitter(contrast=(0.5, 0.5))(IMAGE)
    np.testing.assert_allclose(dull, np.clip(grey + (IMAGE - grey) * 0.5, 0, 1), atol=1e-6)
    np.testing.assert_allclose(transforms.ColorJitter()(IMAGE), IMAGE, atol=1e-6)


def test_one_after_the_other() -> None:
    both = transforms.Compose([transforms.CenterCrop(4), lambda image: image * 2, transforms.RandomVerticalFlip(1.0)])
    np.testing.assert_allclose(both(IMAGE), IMAGE[:, 1:5, 0:4][:, ::-1] * 2)
    assert repr(transforms.RandomCrop(4, padding=2)) == "RandomCrop(size=(4, 4), padding=2)"


class Images(ImageDataset):
    classes = ("a", "b")


def epochs(workers: int, passes: int = 2, skip: int = 0, seed: int = 7) -> list[Any]:
    data = Images(
        np.random.default_rng(1).integers(0, 256, (20, 3, 8, 8)).astype(np.uint8),
        np.zeros(20, np.int64),
        transforms.Compose([transforms.RandomCrop(8, 2), transforms.RandomHorizontalFlip()]),
    )
    loader = DataLoader(data, batch_size=4, shuffle=True, generator=seed, num_workers=workers)
    found = [[x.numpy() for x, _ in loader] for _ in range(passes)]
    if skip:
        loader.load_state_dict({"seed": seed, "epoch": 1})
        return [x.numpy() for x, _ in loader.iterate(skip)]
    return found


def test_random_transforms_repeat_with_any_number_of_threads_and_in_the_middle_of_a_pass() -> None:
    alone, crew = epochs(0), epochs(3)
    np.testing.assert_array_equal(np.concatenate(alone[1]), np.concatenate(crew[1]))
    np.testing.assert_array_equal(np.concatenate(epochs(0, skip=2)), np.concatenate(alone[1][2:]))
    assert not np.array_equal(np.concatenate(epochs(0, seed=8)[0]), np.concatenate(alone[0]))
    first = {x.tobytes() for x in np.concatenate(alone[0])}
    second = {x.tobytes() for x in np.concatenate(alone[1])}
    assert len(first & second) < 10  # each pass draws anew


def test_outside_of_a_loader_hals_seed_decides() -> None:
    crop = transforms.RandomCrop(3, 2)
    found = []
    for _ in range(2):
        hal.manual_seed(3)
        found.append([crop(IMAGE) for _ in range(4)])
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0][0], found[0][1])


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: transforms.CenterCrop(7)(IMAGE), ShapeError, r"an image of at least 7 x 7, got shape \(3, 6, 5\)"),
    (lambda: transforms.RandomCrop(9, 1)(IMAGE), ShapeError, "RandomCrop needs an image of at least 9 x 9"),
    (lambda: transforms.Normalize([0.5, 0.5], [1, 1])(IMAGE), ShapeError, "has 2 means"),
    (lambda: transforms.Normalize([0.5], [0.0]), ValueError, "deviations that are not zero"),
    (lambda: transforms.RandomHorizontalFlip(2), ValueError, "p= from 0 to 1, got 2"),
    (lambda: transforms.ColorJitter(brightness=-1), ValueError, "brightness= of 0 or more"),
    (lambda: transforms.Transform()(IMAGE), NotImplementedError, "Transform has no apply"),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2][:24] for e in ERRORS])
def test_error(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
