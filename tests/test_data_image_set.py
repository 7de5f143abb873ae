"""ImageSet: what it accepts, what it copies, what it counts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from bad_files import random_images
from pspc_rs.data import ImageSet, save_edm_zip, to_float
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, PspcError, PspcWarning, ShapeError
from pspc_rs.provenance import describe_data

u8_images = npst.arrays(np.uint8, npst.array_shapes(min_dims=4, max_dims=4, max_side=4))


def test_bytes_are_held_in_place_and_cannot_be_changed_through_the_set() -> None:
    images = random_images(5, 3, 6, 7)
    data = ImageSet(images)
    assert np.shares_memory(data.images, images)
    assert images.flags.writeable
    assert not data.images.flags.writeable


def test_floats_are_held_in_place_and_taken_as_they_are() -> None:
    images = np.random.default_rng(0).normal(0, 3, (4, 1, 5, 5)).astype(np.float32)
    data = ImageSet(images)
    assert np.shares_memory(data.images, images)
    np.testing.assert_array_equal(data[2], images[2])


def test_a_memmap_and_its_leading_part_stay_on_disk(tmp_path: Path) -> None:
    images = random_images(6, 3, 4, 4)
    np.save(tmp_path / "a.npy", images)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    data = ImageSet(mapped)
    for held in (data.images, data.subset(slice(3)).images, data.subset(range(2)).images, data.select(4).images):
        assert np.shares_memory(held, mapped)
    np.testing.assert_array_equal(data.images, images)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ">f4"])
def test_other_floats_become_float32(dtype: Any) -> None:
    images = np.random.default_rng(0).normal(size=(3, 2, 4, 5)).astype(dtype)
    data = ImageSet(images)
    assert data.dtype == np.float32
    assert data.images.dtype.isnative
    np.testing.assert_array_equal(data.images, images.astype(np.float32))


@given(u8_images)
def test_any_layout_gives_the_same_set(images: Any) -> None:
    data = ImageSet(images)
    layouts = [np.asfortranarray(images), images[:, :, ::-1][:, :, ::-1], np.repeat(images, 2, axis=3)[..., ::2]]
    locked = images.copy()
    locked.flags.writeable = False
    for layout in [*layouts, locked]:
        other = ImageSet(layout)
        assert other.images.flags.c_contiguous
        assert other.fingerprint == data.fingerprint


def test_grey_images_may_come_without_channels() -> None:
    images = random_images(3, 1, 5, 4)
    assert ImageSet(images[:, 0]).shape == (1, 5, 4)
    assert np.shares_memory(ImageSet(images[:, 0]).images, images)


@given(u8_images, st.data())
def test_flips_are_appended_after_all_originals(images: Any, draw: st.DataObject) -> None:
    data = ImageSet(images, xflip=True)
    originals = images.astype(np.float64) / 127.5 - 1
    everything = np.concatenate([originals, originals[..., ::-1]])
    assert len(data) == 2 * data.num_stored == len(everything)
    np.testing.assert_allclose(np.stack(list(data)), everything, atol=1e-6)
    indices = draw.draw(st.lists(st.integers(-len(data), len(data) - 1)))
    batch = data.batch(indices)
    assert batch.dtype == np.float32
    assert batch.shape == (len(indices), *data.shape)
    np.testing.assert_allclose(batch, everything[np.array(indices, int)], atol=1e-6)
    for index in indices:
        np.testing.assert_array_equal(data[index], data.batch([index])[0])


def test_an_item_is_a_copy() -> None:
    for images in (random_images(2, 1, 3, 3), np.zeros((2, 1, 3, 3), np.float32)):
        data = ImageSet(images)
        data[0][:] = 9
        assert data[0].max() <= 1


@pytest.mark.parametrize("xflip", [False, True])
def test_indices_out_of_range(xflip: bool) -> None:
    data = ImageSet(random_images(3, 1, 2, 2), xflip=xflip)
    for index in (len(data), -len(data) - 1):
        with pytest.raises(IndexError):
            data[index]
        with pytest.raises(InvalidValueError):
            data.batch([index])


@pytest.mark.parametrize("indices", [[0.5], [True, False, True], np.zeros(3, bool), ["a"]])
def test_indices_of_other_types(indices: Any) -> None:
    data = ImageSet(random_images(3, 1, 2, 2))
    with pytest.raises(DTypeError):
        data.batch(indices)
    with pytest.raises(DTypeError):
        data.subset(indices)


@pytest.mark.parametrize("index", [0.0, "0", slice(1), True, None])
def test_an_index_of_another_type(index: Any) -> None:
    with pytest.raises(DTypeError):
        ImageSet(random_images(3, 1, 2, 2))[index]


def test_all_bytes_map_to_their_formula() -> None:
    u = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(to_float(u), u / 127.5 - 1, atol=1e-7)
    assert to_float(u)[[0, 255]].tolist() == [-1, 1]
    x = np.zeros(3, np.float32)
    assert to_float(x) is x or np.shares_memory(to_float(x), x)
    with pytest.raises(DTypeError):
        to_float(np.zeros(3))


def test_the_fingerprint_tells_data_apart() -> None:
    images = random_images(4, 1, 6, 2)
    labels = [0, 1, 2, 3]
    base = ImageSet(images, labels)
    changed = images.copy()
    changed[3, 0, 5, 1] ^= 1
    others = [
        ImageSet(changed, labels),
        ImageSet(images, [0, 1, 2, 4]),
        ImageSet(images),
        ImageSet(images, labels, xflip=True),
        ImageSet(images.reshape(4, 1, 2, 6), labels),
        ImageSet(images.astype(np.float32), labels),
        ImageSet(images[::-1], labels),
    ]
    prints = [data.fingerprint for data in [base, *others]]
    assert len(set(prints)) == len(prints)
    assert all(len(text) == 32 and int(text, 16) >= 0 for text in prints)
    assert ImageSet(images.copy(), np.array(labels, np.int8), name="other").fingerprint == base.fingerprint


def test_the_fingerprint_reads_every_piece_of_large_data() -> None:
    images = np.zeros((20, 1, 1024, 1024), np.uint8)
    before = ImageSet(images).fingerprint
    images[-1, 0, -1, -1] = 1
    assert ImageSet(images).fingerprint != before


def test_labels_are_a_private_copy() -> None:
    labels = np.array([3, 1, 2])
    data = ImageSet(random_images(3, 1, 2, 2), labels)
    labels[0] = 9
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [3, 1, 2]
    assert not data.labels.flags.writeable


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        ([0, 1], ShapeError),
        ([[0], [1], [2]], ShapeError),
        ([[0], [1, 2], [2]], ShapeError),
        ([0.0, 1.0, 2.0], DTypeError),
        ([True, False, True], DTypeError),
        (["a", "b", "c"], DTypeError),
        (np.array([1, 2, 2**63], np.uint64), InvalidValueError),
        ({0, 1, 2}, DTypeError),
    ],
)
def test_wrong_labels(labels: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="label"):
        ImageSet(random_images(3, 1, 2, 2), labels)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.uint16, np.complex64, object, "U3"])
def test_wrong_dtypes(dtype: Any) -> None:
    with pytest.raises(DTypeError, match="dtype"):
        ImageSet(np.zeros((2, 1, 3, 3), dtype))


@pytest.mark.parametrize("images", [[[[[0]]]], None, "digits", 3, np.ma.zeros((1, 1, 2, 2), np.uint8)])
def test_what_is_no_array(images: Any) -> None:
    with pytest.raises(DTypeError):
        ImageSet(images)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.1e6, -1.1e6])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pixels_that_are_no_pixels(bad: float, dtype: Any) -> None:
    images = np.zeros((3, 2, 4, 5), dtype)
    with np.errstate(over="ignore"):
        images[1, 0, 2, 3] = bad
    with pytest.raises(InvalidValueError, match=r"at \[1, 0, 2, 3\]"):
        ImageSet(images)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 1, 3, 4, 5), (2, 0, 3, 3), (2, 1, 0, 3), (2, 3, 0)])
def test_wrong_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        ImageSet(np.zeros(shape, np.uint8))


def test_no_images() -> None:
    with pytest.raises(DataError, match="empty"):
        ImageSet(np.zeros((0, 3, 4, 4), np.uint8))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_last_are_noticed(channels: int) -> None:
    with pytest.raises(ShapeError, match="transpose"):
        ImageSet(np.zeros((2, 32, 24, channels), np.uint8))


@pytest.mark.parametrize("shape", [(2, 3, 5, 3), (2, 16, 4, 4), (1, 1, 1, 1), (1, 5, 2, 3), (2, 7, 9, 11)])
def test_small_and_deep_images_are_no_channels_last(shape: tuple[int, ...]) -> None:
    assert ImageSet(np.zeros(shape, np.uint8)).shape == shape[1:]


@pytest.mark.parametrize("xflip", [1, "no", None])
def test_xflip_is_a_flag(xflip: Any) -> None:
    with pytest.raises(DTypeError, match="xflip"):
        ImageSet(np.zeros((1, 1, 2, 2), np.uint8), xflip=xflip)


def test_subset_keeps_order_labels_and_flips() -> None:
    images = random_images(6, 1, 3, 3)
    data = ImageSet(images, list(range(6)), xflip=True, name="six")
    part = data.subset([4, -6, 4])
    np.testing.assert_array_equal(part.images, images[[4, 0, 4]])
    assert part.labels is not None
    assert part.labels.tolist() == [4, 0, 4]
    assert (part.xflip, part.name, len(part)) == (True, "six", 6)
    np.testing.assert_array_equal(data.subset(slice(None, None, -2)).images, images[::-2])
    with pytest.raises(DataError, match="chosen"):
        data.subset([])
    with pytest.raises(InvalidValueError):
        data.subset([6])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 14), st.sets(st.integers(0, 4)))
def test_select_takes_classes_first_and_then_the_first_images(labels: list[int], size: int, classes: set[int]) -> None:
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    data = ImageSet(images, labels)
    expected = [index for index, label in enumerate(labels) if label in classes][:size]
    if not classes or not classes <= set(labels):
        with pytest.raises(InvalidValueError, match="classes"):
            data.select(size, classes)
    else:
        assert data.select(size, classes).images.ravel().tolist() == expected
    assert data.select(size).images.ravel().tolist() == list(range(min(size, len(labels))))


def test_select_changes_flips_only_when_told() -> None:
    data = ImageSet(random_images(2, 1, 2, 2), xflip=True)
    assert data.select().xflip
    assert not data.select(xflip=False).xflip


def test_select_refuses_what_it_cannot_do() -> None:
    data = ImageSet(random_images(2, 1, 2, 2))
    with pytest.raises(DataError, match="no labels"):
        data.select(classes=[0])
    for size, error in ((0, InvalidValueError), (-1, InvalidValueError), (1.5, DTypeError), (True, DTypeError)):
        with pytest.raises(error, match="max_size"):
            data.select(size)  # type: ignore[arg-type]


def test_every_error_is_one_of_ours_and_a_builtin() -> None:
    with pytest.raises(PspcError) as caught:
        ImageSet(np.zeros((2, 2), np.uint8))
    assert isinstance(caught.value, ValueError)


def test_torch_tensors_share_their_memory() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    data = ImageSet(tensor, torch.tensor([1, 2]))
    assert np.shares_memory(data.images, tensor.numpy())
    assert data.labels is not None
    assert data.labels.tolist() == [1, 2]
    floats = torch.rand(2, 1, 3, 3, requires_grad=True)
    np.testing.assert_array_equal(ImageSet(floats).images, floats.detach().numpy())
    half = floats.detach().to(torch.bfloat16)
    np.testing.assert_array_equal(ImageSet(half).images, half.float().numpy())
    np.testing.assert_array_equal(data.batch(torch.tensor([1, 0])), data.batch([1, 0]))


def weighted(n: int = 5, **options: Any) -> ImageSet:
    return ImageSet(random_images(n, 1, 4, 4), log_prior=np.linspace(-3, 1, n), **options)


def test_log_weights_are_copied_and_carried_by_every_choice() -> None:
    given_prior = np.linspace(-3, 1, 5, dtype=np.float32)
    data = ImageSet(random_images(5, 1, 4, 4), [0, 1, 0, 1, 1], log_prior=given_prior)
    given_prior[0] = 7
    held = data.log_prior
    assert held is not None and held.dtype == np.float64 and held.tolist() == [-3, -2, -1, 0, 1]
    with pytest.raises(ValueError, match="read-only"):
        held[0] = 1
    for chosen, expected in (
        (data.subset([4, 0]), [1, -3]),
        (data.subset(slice(1, 3)), [-2, -1]),
        (data.select(classes={1}), [-2, 0, 1]),
        (data.select(max_size=2, xflip=True), [-3, -2]),
    ):
        assert chosen.log_prior is not None and chosen.log_prior.tolist() == expected
    assert "with log_prior" in repr(data)
    assert ImageSet(random_images(2, 1, 4, 4)).log_prior is None


def test_log_weights_identify_data_and_their_absence_changes_no_fingerprint() -> None:
    images = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)
    assert ImageSet(images).fingerprint == "4f69863f0de831666dc9a8847f8243d9"
    sets = [ImageSet(images, log_prior=prior) for prior in (None, [0, 0], [0, 1], [1, 0])]
    assert len({data.fingerprint for data in sets}) == 4
    assert "log_prior" not in describe_data(sets[0]) and describe_data(sets[1])["log_prior"] is True


def test_an_archive_without_the_log_weights_says_so(tmp_path: Path) -> None:
    with pytest.warns(PspcWarning, match="log_prior of the data set is not written"):
        save_edm_zip(weighted(), tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("prior", "error", "message"),
    [
        ([0.0, 1.0], ShapeError, r"log_prior has shape \(2,\); 5 images need one of shape \(5,\)"),
        (np.zeros((5, 1)), ShapeError, r"log_prior has shape \(5, 1\)"),
        ([[0.0], [0.0, 1.0]], ShapeError, "log_prior are a nested sequence of mixed lengths"),
        (["a"] * 5, DTypeError, "log_prior has dtype"),
        ([True] * 5, DTypeError, "log_prior has dtype bool; allowed are real numbers"),
        (0.5, DTypeError, "log_prior must be a numpy array or a torch tensor, not float"),
        ([0, 0, -np.inf, 0, 0], InvalidValueError, r"log_prior is -inf for image 2; allowed are finite .* exclude="),
        ([0, np.nan, 0, 0, 0], InvalidValueError, "log_prior is nan for image 1"),
        ([0, 0, 0, 0, -1.1e6], InvalidValueError, "log_prior is -1100000.0 for image 4; allowed are .* at most 1e"),
    ],
)
def test_bad_log_weights_are_refused(prior: Any, error: type[PspcError], message: str) -> None:
    with pytest.raises(error, match=message):
        ImageSet(random_images(5, 1, 4, 4), log_prior=prior)


def test_classes_are_the_labels_that_occur() -> None:
    data = ImageSet(random_images(4, 1, 4, 4), [7, -1, 7, 3])
    assert data.classes is not None and data.classes.tolist() == [-1, 3, 7]
    assert ImageSet(random_images(4, 1, 4, 4)).classes is None
