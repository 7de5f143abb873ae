"""Augmentation: geometry, labels and laws."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.training.augment import Augmentation, AugmentPipe, rotation, scaling, transform, translation
from pspc_rs.training.batches import RowDraws


def one(number: float) -> torch.Tensor:
    return torch.tensor([number], dtype=torch.float64)


def smooth(height: int, width: int) -> torch.Tensor:
    """An image of slow waves, which survive resampling, [1, 1, H, W]."""
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    return (torch.sin(2 * math.pi * x / 16) + torch.cos(2 * math.pi * y / 12 + 0.3))[None, None]


def draws(num: int, seed: int = 0) -> RowDraws:
    random = torch.Generator().manual_seed(seed)
    uniforms = torch.rand(num, 12, generator=random, dtype=torch.float64)
    return RowDraws(uniforms, torch.randn(num, 8, generator=random, dtype=torch.float64))


@given(st.integers(7, 20), st.integers(7, 20), st.integers(1, 3))
def test_the_identity_gives_images_back(height: int, width: int, channels: int) -> None:
    x = torch.rand(2, channels, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    same = transform(x, torch.eye(3, dtype=torch.float64).expand(2, 3, 3))
    assert same.shape == x.shape
    assert torch.allclose(same, x, atol=1e-12)


@pytest.mark.parametrize(("shift_x", "shift_y"), [(1, 0), (0, 2), (-3, 1)])
def test_translation_by_whole_pixels_moves_them(shift_x: int, shift_y: int) -> None:
    x = smooth(24, 32)
    moved = transform(x, translation(one(-shift_x), one(-shift_y)))
    expected = x.roll((shift_y, shift_x), (2, 3))
    assert torch.allclose(moved[:, :, 8:-8, 8:-8], expected[:, :, 8:-8, 8:-8], atol=1e-9)


def test_half_a_turn_is_both_flips() -> None:
    x = smooth(20, 20)
    # The filter is not quite symmetric.
    assert torch.allclose(transform(x, rotation(one(math.pi))), x.flip(2, 3), atol=0.1)


def test_scaling_enlarges_about_the_centre() -> None:
    x = smooth(48, 48)
    y, rows = transform(x, scaling(one(0.5), one(0.5))), torch.arange(10, 38).double()
    expected = torch.sin(2 * math.pi * ((rows - 23.5) / 2 + 23.5) / 16)
    found = y[0, 0, 24, 10:38]
    assert torch.allclose(found - found.mean(), expected - expected.mean(), atol=0.03)


def test_images_that_stay_as_they_are_are_not_resampled() -> None:
    pipe = AugmentPipe(0.12)
    plan = pipe.draw(200, draws(200))
    x = torch.rand(200, 1, 6, 9, generator=torch.Generator().manual_seed(2))
    out = pipe.apply(x, plan)
    still = ~plan.moved
    assert 90 < int(still.sum()) < 150  # 0.88^4 of them
    flipped = torch.where(plan.xflip[:, None, None, None], x.flip(3), x)
    flipped = torch.where(plan.yflip[:, None, None, None], flipped.flip(2), flipped)
    assert torch.equal(out[still], flipped[still])
    assert (out[plan.moved] != flipped[plan.moved]).flatten(1).any(1).all()
    assert (plan.labels[still][:, 2:] == 0).all()


def test_half_of_the_images_are_flipped_at_any_p() -> None:
    plan = AugmentPipe(1e-7).draw(400, draws(400))
    assert 160 < int(plan.xflip.sum()) < 240
    assert not plan.yflip.any()
    assert not plan.moved.any()
    assert torch.equal(plan.labels[:, 0], plan.xflip.float())
    assert (plan.labels[:, 1:] == 0).all()


def test_the_whole_batch_is_as_its_parts() -> None:
    pipe = AugmentPipe(1.0)
    whole = pipe.draw(8, draws(8))
    x = torch.rand(8, 3, 10, 12, dtype=torch.float64)
    out = pipe.apply(x, whole)
    for part in (slice(0, 3), slice(3, 8)):
        plan = Augmentation(*(getattr(whole, name)[part] for name in ("xflip", "yflip", "inverse", "shift", "labels")))
        assert torch.allclose(pipe.apply(x[part], plan), out[part], atol=1e-9)


def test_operations_without_a_multiplier_do_not_exist() -> None:
    none = AugmentPipe(1.0, xflip=0, yflip=0, scale=0, rotate=0, aniso=0, translate=0)
    plan = none.draw(3, draws(3))
    x = torch.rand(3, 1, 4, 4)
    assert (none.label_dim, plan.labels.shape) == (0, (3, 0))
    assert torch.equal(none.apply(x, plan), x)
    assert AugmentPipe(1.0, yflip=0, rotate=0).label_dim == 6


def test_bad_arguments() -> None:
    with pytest.raises(InvalidValueError, match=r"p is 1.5; allowed are numbers from 0 and up to 1"):
        AugmentPipe(1.5)
    with pytest.raises(InvalidValueError, match="scale is -1"):
        AugmentPipe(0.5, scale=-1)
    pipe = AugmentPipe(0.5)
    with pytest.raises(ShapeError, match=r"needed is \[3, channels, height, width\]"):
        pipe.apply(torch.zeros(2, 1, 4, 4), pipe.draw(3, draws(3)))
