"""EDM archives and folders of images, written and read back."""

import errno
import json
import os
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bad_files import encoded, labels_of, png_claiming, random_images, write_folder, write_zip
from pspc_rs.data import ImageSet, decode, load, read_edm_zip, read_folder, save_edm_zip
from pspc_rs.data.readers import archives, image_files
from pspc_rs.errors import DataError, DTypeError, OutputError, ShapeError


@given(
    num=st.integers(1, 5),
    channels=st.sampled_from([1, 3, 4]),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    labelled=st.booleans(),
)
def test_edm_archives_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, num: int, channels: int, height: int, width: int, labelled: bool
) -> None:
    images = random_images(num, channels, height, width)
    data = ImageSet(images, list(range(num))[::-1] if labelled else None)
    path = save_edm_zip(data, tmp_path_factory.mktemp("edm") / "a.zip")
    back = read_edm_zip(path)
    np.testing.assert_array_equal(back.images, images)
    assert labels_of(back) == labels_of(data)
    assert back.fingerprint == data.fingerprint


def test_edm_archives_have_edms_layout_and_the_same_bytes_every_time(tmp_path: Path) -> None:
    data = ImageSet(random_images(1002, 1, 2, 3), [7] * 1002, xflip=True)
    first = save_edm_zip(data, tmp_path / "a.zip").read_bytes()
    assert save_edm_zip(data, tmp_path / "b.zip").read_bytes() == first
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        assert names[0] == "00000/img00000000.png"
        assert names[1000:] == ["00001/img00001000.png", "00001/img00001001.png", "dataset.json"]
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("dataset.json"))["labels"][1001] == ["00001/img00001001.png", 7]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.zip", "b.zip"]


def test_an_archive_without_labels_says_so(tmp_path: Path) -> None:
    path = save_edm_zip(ImageSet(random_images(1, 3, 2, 2)), tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("dataset.json")) == {"labels": None}


def test_what_no_edm_archive_can_hold(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="2 channels"):
        save_edm_zip(ImageSet(random_images(1, 2, 3, 3)), tmp_path / "a.zip")
    with pytest.raises(DTypeError, match="float32"):
        save_edm_zip(ImageSet(np.zeros((1, 1, 3, 3), np.float32)), tmp_path / "a.zip")
    with pytest.raises(DTypeError, match="ImageSet"):
        save_edm_zip(random_images(1, 1, 3, 3), tmp_path / "a.zip")  # type: ignore[arg-type]
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(OutputError):
        save_edm_zip(ImageSet(random_images(1, 1, 3, 3)), tmp_path / "folder.zip")
    assert [file.name for file in tmp_path.iterdir()] == ["folder.zip"]


def test_a_failed_write_leaves_the_old_archive_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_edm_zip(ImageSet(random_images(1, 1, 3, 3)), tmp_path / "a.zip")
    before = path.read_bytes()

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_edm_zip(ImageSet(random_images(2, 1, 3, 3)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_members_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    images = random_images(3, 1, 4, 4)
    members = {
        "b/2.png": encoded(images[2]),
        "README.txt": b"words",
        "a/9.PNG": encoded(images[0]),
        "__MACOSX/a/._9.png": b"junk",
        "b/10.png": encoded(images[1]),
        "dataset.json": json.dumps({"labels": [["b/2.png", 2], ["a/9.PNG", 0], ["b/10.png", 1], ["gone", 5]]}).encode(),
    }
    data = read_edm_zip(write_zip(tmp_path / "a.zip", members, zipfile.ZIP_DEFLATED))
    np.testing.assert_array_equal(data.images, images)
    assert labels_of(data) == [0, 1, 2]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded from now on, by Pillow or in the core."""
    names: list[str] = []
    original, plainly = decode._decode, archives.ZipImages.decode_plain

    def counting(file: decode.ImageFile, expected: Any) -> Any:
        names.append(file.name)
        return original(file, expected)

    def counting_plain(self: archives.ZipImages, indices: range, pixels: Any) -> list[int]:
        left = plainly(self, indices, pixels)
        names.extend(self.file(indices[position]).name for position in set(range(len(indices))) - set(left))
        return left

    monkeypatch.setattr(decode, "_decode", counting)
    monkeypatch.setattr(archives.ZipImages, "decode_plain", counting_plain)
    return names


def test_only_wanted_images_are_decoded_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(100, 1, 4, 4)
    path = save_edm_zip(ImageSet(images, list(range(50)) * 2), tmp_path / "a.zip")
    names = counted(monkeypatch)
    data = read_edm_zip(path, max_size=3, classes={1, 2}, xflip=True)
    assert len(names) == 3
    assert labels_of(data) == [1, 2, 1]
    np.testing.assert_array_equal(data.images, images[[1, 2, 51]])
    names.clear()
    read_edm_zip(path, xflip=True)
    assert len(names) == len(set(names)) == 100


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_ctrl_c_stops_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    members = {f"{index:03}.{kind}": encoded(image, kind) for index, image in enumerate(random_images(400, 1, 65, 65))}
    path = write_zip(tmp_path / "a.zip", members)
    names = counted(monkeypatch)
    released = threading.Event()
    decoding = decode._decode

    def waiting(file: decode.ImageFile, expected: Any) -> Any:
        if len(names) > 100:
            released.wait(10)
        return decoding(file, expected)

    monkeypatch.setattr(decode, "_decode", waiting)

    def interrupted(done: int, total: int) -> None:
        if done > 1:
            released.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_edm_zip(path, progress=interrupted)
    assert len(names) < 400


@pytest.mark.parametrize("progress", [True, False, None])
def test_progress_is_shown_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], progress: bool | None
) -> None:
    path = save_edm_zip(ImageSet(random_images(3, 1, 4, 4)), tmp_path / "a.zip")
    read_edm_zip(path, progress=progress)
    assert ("a.zip" in capsys.readouterr().err) == bool(progress)


def test_progress_may_be_a_function(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    data = ImageSet(random_images(40, 1, 4, 4))
    path = save_edm_zip(data, tmp_path / "a.zip", progress=lambda *call: calls.append(call))
    assert calls == [(done, 40) for done in range(1, 41)]
    calls.clear()
    load(path, progress=lambda *call: calls.append(call))
    assert calls == [(1, 40), (33, 40), (40, 40)]
    with pytest.raises(DTypeError, match="progress is 'yes'"):
        load(path, progress="yes")  # type: ignore[arg-type]


def test_folders_are_read_recursively_in_the_order_of_their_paths(tmp_path: Path) -> None:
    images = random_images(4, 3, 3, 5)
    names = ["a.png", "b/a.bmp", "b/c/d.tiff", "b.png"]
    formats = ["PNG", "BMP", "TIFF", "PNG"]
    files = {name: encoded(image, kind) for name, image, kind in zip(names, images, formats, strict=True)}
    data = read_folder(write_folder(tmp_path, {**files, ".hidden.png": b"", ".git/x.png": b"", "notes.txt": b""}))
    np.testing.assert_array_equal(data.images, images[[names.index(name) for name in sorted(names)]])
    assert data.labels is None


def test_subfolders_are_classes(tmp_path: Path) -> None:
    image = encoded(random_images(1, 1, 2, 2)[0])
    folder = write_folder(tmp_path, {"dog/1.png": image, "cat/x/1.png": image, "ant/1.png": image, "cat/2.png": image})
    assert labels_of(read_folder(folder)) == [0, 1, 1, 2]
    assert labels_of(read_folder(folder, classes=[2])) == [2]
    write_folder(tmp_path, {"loose.png": image})
    assert read_folder(folder).labels is None


@pytest.mark.parametrize("linked", [("cat", "dog"), ("cat", "dog", "ant")])
def test_linked_class_folders_are_read(tmp_path: Path, linked: tuple[str, ...]) -> None:
    image = encoded(random_images(1, 1, 2, 2)[0])
    write_folder(tmp_path, {f"{kind}/{index}.png": image for kind in ("cat", "dog", "ant") for index in range(2)})
    folder = tmp_path / "set"
    folder.mkdir()
    for kind in ("cat", "dog", "ant"):
        if kind in linked:
            (folder / kind).symlink_to(tmp_path / kind)
        else:
            (tmp_path / kind).rename(folder / kind)
    assert labels_of(load(folder)) == [0, 0, 1, 1, 2, 2]


def test_links_that_lead_back_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = encoded(random_images(1, 1, 2, 2)[0])
    folder = write_folder(tmp_path / "set", {"a/1.png": image, "b/2.png": image})
    (folder / "a" / "home").symlink_to(folder)
    (folder / "b" / "self").symlink_to(folder / "b")
    (folder / "b" / "gone").symlink_to(tmp_path / "gone")
    assert read_folder(folder).num_stored == 2
    (folder / "a" / "other").symlink_to(folder / "b")
    (folder / "b" / "other").symlink_to(folder / "a")
    assert labels_of(read_folder(folder)) == [0, 0, 1, 1]
    monkeypatch.setattr(image_files, "_MOST_LINKS", 50)
    for first in range(6):
        for second in range(6):
            (folder / f"{first}").mkdir(exist_ok=True)
            (folder / f"{first}" / f"{second}").symlink_to(folder / f"{second}")
    with pytest.raises(DataError, match="more than 50 linked folders"):
        read_folder(folder)


def test_folders_that_cannot_be_read_are_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = encoded(random_images(1, 1, 2, 2)[0])
    folder = write_folder(tmp_path, {"a/1.png": image, "b/2.png": image})
    original = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match="b cannot be read: Permission denied"):
        read_folder(folder)


JUNK = ("__MACOSX/a/._1.png", "@eaDir/1.png/SYNOPHOTO_THUMB_M.png", "a/@eaDir/1.png", "a/._1.png", "$RECYCLE.BIN/1.png")


def test_what_systems_put_beside_images_is_no_image(tmp_path: Path) -> None:
    files = {"a/1.png": encoded(random_images(1, 1, 2, 2)[0]), **dict.fromkeys(JUNK, b"junk")}
    for data in (load(write_folder(tmp_path / "a", files)), load(write_zip(tmp_path / "a.zip", files))):
        assert (data.num_stored, data.shape) == (1, (1, 2, 2))


LAYOUTS: list[dict[str, int]] = [
    {"ant/1.png": 0, "cat/1.png": 1, "cat/2.png": 1, "dog/x/1.png": 2},
    {"set/ant/1.png": 0, "set/dog/1.png": 1},
    {"./set/ant/1.png": 0, "./set/dog/1.png": 1},
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("slash", ["/", "\\"])
@pytest.mark.parametrize("listed", [False, True])
def test_an_archive_of_a_folder_of_classes_keeps_its_labels(
    tmp_path: Path, layout: dict[str, int], slash: str, listed: bool
) -> None:
    image = encoded(random_images(1, 1, 2, 2)[0])
    members = {name.replace("/", slash): image for name in layout}
    expected = list(layout.values())
    if listed:
        top = next(iter(layout)).removeprefix("./").split("/")[0] + "/" if len(layout) == 2 else ""
        known = {name.removeprefix("./").removeprefix(top): 9 - label for name, label in layout.items()}
        entries = [[name.replace("/", slash), label] for name, label in known.items()]
        members[f"{top}dataset.json".replace("/", slash)] = json.dumps({"labels": entries}).encode()
        expected = [9 - label for label in expected]
    # Zipfile would turn the backslashes into slashes on Windows only.
    path = write_zip(tmp_path / "a.zip", {**members, f"set{slash}": b""})
    data = load(path)
    assert labels_of(data) == expected
    assert load(path, classes=[expected[0]]).num_stored == 1


def test_an_archive_of_one_folder_of_images_has_no_labels(tmp_path: Path) -> None:
    image = encoded(random_images(1, 1, 2, 2)[0])
    assert load(write_zip(tmp_path / "a.zip", {"images/1.png": image, "images/2.png": image})).labels is None
    assert load(write_zip(tmp_path / "b.zip", {"1.png": image, "a/2.png": image})).labels is None


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_dataset_json_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    text = json.dumps({"labels": [["a.png", 5]]}).encode(encoding)
    files = {"a.png": encoded(random_images(1, 1, 2, 2)[0]), "dataset.json": text}
    assert labels_of(load(write_folder(tmp_path / "a", files))) == [5]
    assert labels_of(load(write_zip(tmp_path / "a.zip", files))) == [5]


def test_dataset_json_wins_over_subfolders(tmp_path: Path) -> None:
    image = encoded(random_images(1, 1, 2, 2)[0])
    folder = write_folder(tmp_path, {"a/1.png": image, "b/1.png": image})
    (tmp_path / "dataset.json").write_text('{"labels": [["a/1.png", 8], ["b/1.png", 5]]}')
    assert labels_of(read_folder(folder)) == [8, 5]
    (tmp_path / "dataset.json").write_text('{"labels": null}')
    assert read_folder(folder).labels is None


def test_an_unpacked_edm_archive_is_the_same_data_set(tmp_path: Path) -> None:
    data = ImageSet(random_images(3, 3, 4, 4), [1, 0, 1])
    path = save_edm_zip(data, tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "a")
    assert read_folder(tmp_path / "a").fingerprint == data.fingerprint
    (tmp_path / "a" / "dataset.json").unlink()
    assert read_folder(tmp_path / "a").labels is None


def save_image(image: Image.Image, folder: Path, **options: Any) -> ImageSet:
    image.save(folder / "a.png", **options)
    return read_folder(folder)


def test_modes(tmp_path: Path) -> None:
    colours = random_images(1, 3, 4, 4)[0]
    picture = Image.fromarray(np.ascontiguousarray(colours.transpose(1, 2, 0)))
    palette = picture.quantize(4)
    np.testing.assert_array_equal(
        save_image(palette, tmp_path).images[0], np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    )
    transparent = save_image(palette, tmp_path, transparency=b"\x00\x80")
    np.testing.assert_array_equal(np.unique(transparent.images[0, 3]), [0, 128, 255])
    assert save_image(picture.convert("RGBA"), tmp_path).channels == 4
    assert save_image(picture.convert("LA"), tmp_path).channels == 2
    assert set(np.unique(save_image(picture.convert("1"), tmp_path).images)) <= {0, 255}


def test_a_folder_of_jpegs_gives_what_pillow_gives(tmp_path: Path) -> None:
    picture = Image.fromarray(np.kron(np.arange(16).reshape(4, 4) * 16, np.ones((8, 8))).astype(np.uint8))
    picture.save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as back:
        np.testing.assert_array_equal(read_folder(tmp_path).images[0, 0], np.asarray(back))


def test_a_png_written_by_hand(tmp_path: Path) -> None:
    rows = b"".join(b"\x00" + bytes(range(9 * y, 9 * y + 9)) for y in range(2))
    (tmp_path / "a.png").write_bytes(png_claiming(3, 2, rows=rows))
    np.testing.assert_array_equal(read_folder(tmp_path).images[0].transpose(1, 2, 0).ravel(), np.arange(18))


def test_real_archives(test_data: Path) -> None:
    cats = load(test_data / "afhq-cats-64x64.zip")
    assert (cats.num_stored, cats.shape, cats.labels) == (400, (3, 64, 64), None)
    with zipfile.ZipFile(test_data / "afhq-cats-64x64.zip") as archive:
        name = sorted(name for name in archive.namelist() if name.endswith(".png"))[123]
        with archive.open(name) as file, Image.open(file) as image:
            np.testing.assert_array_equal(cats.images[123].transpose(1, 2, 0), np.asarray(image))
    some = load(test_data / "cifar10-32x32.zip", max_size=64)
    assert (some.num_stored, some.shape) == (64, (3, 32, 32))
    # The first training images of CIFAR-10 are a frog, two trucks, a deer and a car.
    assert some.labels is not None
    assert some.labels[:5].tolist() == [6, 9, 9, 4, 1]
