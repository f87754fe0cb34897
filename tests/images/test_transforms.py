from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from fastccsa.images import Transforms, Views
from fastccsa.images.transforms import find_regions
from fastccsa.system.errors import InputError

MANY = 8000


@pytest.fixture(scope="module")
def drawn() -> Views:
    return Transforms(224).draw(seed=5, epoch=2, positions=np.arange(MANY), stream=1)


def test_default_sizes_are_the_papers() -> None:
    transforms = Transforms()
    assert (transforms.resize, transforms.crop, transforms.size, transforms.cutout) == (650, 300, 224, 64)
    assert transforms.crop_offset == 175
    assert transforms.evaluation_offset == 38


def test_sizes_scale_with_the_image() -> None:
    transforms = Transforms(64)
    assert (transforms.resize, transforms.crop, transforms.cutout) == (186, 86, 18)


def test_evaluation_shows_the_centre_of_the_resized_image() -> None:
    transforms = Transforms()
    window = transforms.evaluation(3).window
    assert (window[:, :2] + transforms.crop_offset == (650 - 224) // 2).all()
    assert (window[:, 2:] == 224).all()


@pytest.mark.parametrize(
    "arguments",
    [{"size": 7}, {"scale": (0.0, 1.0)}, {"scale": (0.5, 0.4)}, {"ratio": (2.0, 1.0)}, {"std": (1.0, 1.0, 0.0)}],
)
def test_values_out_of_range_are_rejected(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match="Transforms: "):
        Transforms(**arguments)  # type: ignore[arg-type]


def test_views_depend_only_on_their_own_position() -> None:
    transforms = Transforms(64)
    whole = transforms.draw(1, 0, np.arange(100), stream=1)
    part = transforms.draw(1, 0, np.array([77, 3, 50]), stream=1)
    for name in ("window", "flips", "turns", "cutout"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[[77, 3, 50]])


@pytest.mark.parametrize("other", [{"seed": 2}, {"epoch": 1}, {"stream": 2}])
def test_views_differ_by_seed_epoch_and_stream(other: dict[str, int]) -> None:
    arguments = {"seed": 1, "epoch": 0, "stream": 1, "positions": np.arange(100)}
    first = Transforms(64).draw(**arguments)
    second = Transforms(64).draw(**{**arguments, **other})
    assert (first.window != second.window).any(axis=1).mean() > 0.9


def test_windows_are_within_the_centre_crop(drawn: Views) -> None:
    top_left, extent = drawn.window[:, :2], drawn.window[:, 2:]
    assert (top_left >= 0).all()
    assert (extent >= 1).all()
    assert (top_left + extent <= 300).all()


def test_windows_have_the_distribution_of_torchvisions(drawn: Views) -> None:
    torch.manual_seed(0)
    image = torch.empty(3, 300, 300)
    theirs = np.array([RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(MANY)])
    ours = drawn.window
    statistics = {
        "area": lambda w: w[:, 2] * w[:, 3],
        "log ratio": lambda w: np.log(w[:, 3] / w[:, 2]),
        "height": lambda w: w[:, 2],
        "width": lambda w: w[:, 3],
        "top": lambda w: w[:, 0],
        "left": lambda w: w[:, 1],
        "position": lambda w: w[:, 0] / np.maximum(300 - w[:, 2], 1),
    }
    for name, statistic in statistics.items():
        assert stats.ks_2samp(statistic(ours), statistic(theirs)).pvalue > 1e-3, name


def test_area_is_uniform_and_ratio_log_uniform_if_every_attempt_fits() -> None:
    transforms = Transforms(224, scale=(0.08, 0.7))  # the widest window has 290 pixels, so none is rejected
    window = transforms.draw(3, 0, np.arange(MANY), stream=2).window
    area = window[:, 2] * window[:, 3] / 300**2
    ratio = window[:, 3] / window[:, 2]
    assert stats.kstest(area, stats.uniform(0.08, 0.62).cdf).pvalue > 1e-3
    low, high = np.log([3 / 4, 4 / 3])
    assert stats.kstest(np.log(ratio), stats.uniform(low, high - low).cdf).statistic < 0.03  # sides are integers


@pytest.mark.parametrize(("ratio", "size"), [((2.0, 3.0), (150, 300)), ((0.25, 0.5), (300, 150))])
def test_the_fallback_window_is_torchvisions(ratio: tuple[float, float], size: tuple[int, int]) -> None:
    window = Transforms(224, scale=(1.0, 1.0), ratio=ratio).draw(0, 0, np.arange(5), stream=1).window
    theirs = RandomResizedCrop.get_params(torch.empty(3, 300, 300), (1.0, 1.0), ratio)
    assert (window == theirs).all()
    assert tuple(window[0, 2:]) == size


def test_all_eight_symmetries_are_equally_likely(drawn: Views) -> None:
    flips, transpose = drawn.symmetry
    counts = np.bincount(4 * transpose + 2 * flips[:, 0] + flips[:, 1], minlength=8)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.chisquare(np.bincount(drawn.turns, minlength=4)).pvalue > 1e-3
    for axis in range(2):
        assert stats.binomtest(int(drawn.flips[:, axis].sum()), MANY).pvalue > 1e-3


def test_symmetry_combines_flips_and_then_turns() -> None:
    pixels = np.arange(9).reshape(3, 3)
    for upside_down in (False, True):
        for mirrored in (False, True):
            for turns in range(4):
                views = Views(
                    window=np.zeros((1, 4), np.int64),
                    flips=np.array([[upside_down, mirrored]]),
                    turns=np.array([turns]),
                    cutout=np.zeros((1, 4), np.int64),
                )
                expected = np.flipud(pixels) if upside_down else pixels
                expected = np.fliplr(expected) if mirrored else expected
                expected = np.rot90(expected, turns)
                flips, transpose = views.symmetry
                result = np.flip(pixels, np.flatnonzero(flips[0]))
                result = result.T if transpose[0] else result
                np.testing.assert_array_equal(result, expected)


def test_cutout_is_a_clipped_square_around_a_uniform_centre(drawn: Views) -> None:
    size, side = 224, 64
    top, left, height, width = drawn.cutout.T
    for start, extent in ((top, height), (left, width)):
        assert (start >= 0).all()
        assert (start + extent <= size).all()
        assert (extent >= side // 2).all()
        # The centre follows from the start, or from the extent if the start was clipped to 0.
        centre = np.where(start > 0, start + side // 2, extent - side // 2)
        assert stats.chisquare(np.bincount(centre, minlength=size)).pvalue > 1e-3
    # DeVries and Taylor: clip(centre - side / 2) to clip(centre + side / 2).
    centres = np.arange(size)
    lengths = np.minimum(centres + side // 2, size) - np.maximum(centres - side // 2, 0)
    assert (height * width).mean() == pytest.approx(lengths.mean() ** 2, rel=0.02)


def test_fill_is_zero_after_normalisation() -> None:
    transforms = Transforms()
    normalised = (np.array(transforms.fill) / 255 - transforms.mean) / transforms.std
    assert np.abs(normalised).max() < 0.5 / 255 / min(transforms.std)


def test_without_a_resize_regions_equal_the_windows() -> None:
    transforms = Transforms(224)
    views = transforms.draw(0, 0, np.arange(50), stream=1)
    regions = find_regions(transforms, views, np.full((50, 2), 650), np.array([224, 224]))
    corner = regions.resample[:, :2] + regions.decode[:, :2]
    np.testing.assert_allclose(corner, views.window[:, :2] + 175)
    np.testing.assert_allclose(regions.resample[:, 2:] - regions.resample[:, :2], views.window[:, 2:])


def test_the_decoded_part_covers_the_reach_of_the_filter() -> None:
    transforms = Transforms(64)
    shapes = np.tile([[1500, 2000], [60, 90]], (50, 1))
    views = transforms.draw(0, 0, np.arange(100), stream=1)
    regions = find_regions(transforms, views, shapes, np.array([64, 64]))
    start, extent = regions.decode[:, :2], regions.decode[:, 2:]
    assert (start >= 0).all()
    assert (extent >= 1).all()
    assert (start + extent <= shapes).all()
    reach = np.maximum((regions.resample[:, 2:] - regions.resample[:, :2]) / 64, 1)
    assert ((regions.resample[:, :2] >= reach) | (start == 0)).all()
    assert ((extent - regions.resample[:, 2:] >= reach) | (start + extent == shapes)).all()


def test_concatenating_views_keeps_their_order() -> None:
    transforms = Transforms(64)
    parts = [transforms.draw(0, 0, positions, stream=1) for positions in (np.arange(3), np.arange(3, 8))]
    joined = Views.concatenate(parts)
    whole = transforms.draw(0, 0, np.arange(8), stream=1)
    assert len(joined) == 8
    np.testing.assert_array_equal(joined.window, whole.window)
    np.testing.assert_array_equal(joined.cutout, whole.cutout)
