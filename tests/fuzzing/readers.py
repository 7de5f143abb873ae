"""The readers that are fuzzed, each with whole files to start from."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

import pspc_rs as pspc
from bad_files import cifar_files, encoded, idx_bytes, python2_batch, random_images, tar_bytes
from fuzzing.targets import Arrays, Reader, without_result
from pspc_rs import schedules
from pspc_rs.data import load, read_folder, save_edm_zip
from pspc_rs.data.readers import cifar
from pspc_rs.data.readers.plain_pickle import read_plain_pickle
from pspc_rs.denoisers.covariance import principal_axes
from pspc_rs.denoisers.gaussian import cached_statistics
from pspc_rs.outputs import open_array

IMAGES = random_images(4, 3, 6, 5)
GREY = random_images(4, 1, 6, 5)


def written(write: Callable[[Path], object]) -> bytes:
    """The bytes of a file that a function writes."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "file")
        write(path)
        return path.read_bytes()


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def zip_seeds() -> list[bytes]:
    members = {f"{kind}/{index}.png": encoded(IMAGES[index]) for index, kind in enumerate("aabb")}
    listed = json.dumps({"labels": [[name, index] for index, name in enumerate(members)]}).encode()
    edm = written(lambda path: save_edm_zip(pspc.ImageSet(IMAGES, [0, 1, 2, 3]), path))
    return [edm, zip_of(members), zip_of({**members, "dataset.json": listed}), zip_of({"images.npy": npy(IMAGES)})]


def npz_seeds() -> list[bytes]:
    arrays = [
        {"images.npy": npy(IMAGES), "labels.npy": npy(np.arange(4))},
        {"x_train.npy": npy(GREY[:, 0].astype(np.float32)), "y_train.npy": npy(np.eye(4))},
        {"arr_0.npy": npy(random_images(2, 8, 9, 3)), "arr_1.npy": npy(np.array([[0.5], [1.0]]))},
    ]
    return [zip_of(members, method) for members in arrays for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]


def npy_seeds() -> list[bytes]:
    kinds = [IMAGES, GREY.astype(np.float32), np.asfortranarray(IMAGES.astype(np.float64)), GREY[:, 0].astype(">f4")]
    return [npy(array) for array in [*kinds, random_images(2, 9, 8, 3)]]


def image_seeds() -> list[bytes]:
    formats = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "TGA")
    picture = Image.fromarray(np.ascontiguousarray(IMAGES[0].transpose(1, 2, 0)))
    palette = written(lambda path: picture.quantize(4).save(path, "PNG", transparency=b"\x00\x80"))
    return [encoded(image, kind) for kind in formats for image in (IMAGES[0], GREY[0])] + [palette]


def cifar_seeds() -> list[bytes]:
    images, labels = random_images(2, 3, 32, 32), [1, 2]
    content = {"data": images.reshape(2, -1), "labels": labels}
    return [python2_batch(images, labels), *(pickle.dumps(content, protocol) for protocol in (2, 4, 5))]


def tar_seeds() -> list[bytes]:
    images = random_images(12, 3, 32, 32)
    files = [cifar_files(images, [1] * 12, binary) for binary in (False, True)]
    return [tar_bytes(members, packed) for members in files for packed in (False, True)]


def webdataset_seeds() -> list[bytes]:
    files = {
        f"{index}.{kind}": data for index in range(3) for kind, data in (("cls", b"2"), ("png", encoded(IMAGES[0])))
    }
    arrays = {f"{index}.npy": npy(IMAGES[index].astype(np.float32)) for index in range(3)}
    return [tar_bytes(members, packed) for members in (files, arrays) for packed in (False, True)]


def imagenet_seeds() -> list[bytes]:
    members = {"data.npy": npy(random_images(3, 3, 4, 4).reshape(3, -1)), "labels.npy": npy(np.array([1, 1000, 7]))}
    return [zip_of(members, method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]


def pickle_seeds() -> list[bytes]:
    content = {"a": [1, 2.5, None, True], b"b": ("x", b"y", -(2**40)), "c": np.zeros((2, 3), np.uint8)}
    return [pickle.dumps(content, protocol) for protocol in (2, 3, 4, 5)] + [python2_batch(IMAGES, [1, 2, 3, 4])]


def label_seeds() -> list[bytes]:
    entries: list[Any] = [[["a.png", 1]], [["a.png", [0.5, 1]]], [["a.png", [0, 1, 0]]], None]
    texts = [json.dumps({"labels": labels}) for labels in entries]
    return [text.encode(encoding) for text in texts for encoding in ("utf-8", "utf-8-sig", "utf-16")]


def schedule_seeds() -> list[bytes]:
    found: list[Any] = [schedules.patch_schedule("cifar10"), schedules.threshold_schedule("cifar10")]
    return [written(one.save) for one in found]


def images_of(path: Path) -> Arrays:
    cifar.BATCH_SIZE = 2
    data = load(path)
    return [data.images, data.batch([0])]


def images_beside(file: Path) -> Arrays:
    data = read_folder(file.parent)
    return [data.images, data.batch([0])]


def labelled_images(file: Path) -> Arrays:
    (file.parent / "a.png").write_bytes(encoded(GREY[0]))
    return images_beside(file)


def cifar_beside(file: Path) -> Arrays:
    cifar.BATCH_SIZE = 2
    return [load(file.parent, split="test").images]


def schedule(file: Path) -> Arrays:
    kinds: list[Any] = [schedules.PatchSchedule, schedules.ThresholdSchedule]
    errors = []
    for kind in kinds:
        try:
            found = kind.load(file)
        except pspc.PspcError as error:
            errors.append(error)
        else:
            return [np.array(found.sigmas), np.array([found.at(sigma) != 0 for sigma in found.sigmas], float)]
    raise errors[0]


DATA = pspc.ImageSet(GREY)


def heatmaps(file: Path) -> Arrays:
    data = pspc.ImageSet(random_images(3, 1, 2, 2))
    denoiser = pspc.PSPCFlex(data, heatmaps=file, thresholds=[0.5], sigmas=[1.0])
    return [denoiser(np.zeros((1, 1, 2, 2)), 1.0)]


def heatmap_seeds() -> list[bytes]:
    maps = np.random.default_rng(0).random((1, 2, 2, 2, 2))
    return [
        npy(maps),
        npy(maps.astype(np.float32)),
        npy(np.asfortranarray(maps)),
        npy(np.eye(4).reshape(1, 2, 2, 2, 2)),
    ]


def statistics_seeds() -> list[bytes]:
    found = principal_axes(DATA)
    return [zip_of({f"{name}.npy": npy(getattr(found, name)) for name in ("mean", "axes", "variances")}, 0)]


def statistics(file: Path) -> Arrays:
    os.environ["PSPC_CACHE_DIR"] = str(file.parent.parent)
    file.rename(file.with_name(f"{DATA.fingerprint}.npz"))
    found = cached_statistics(DATA)
    return [found.mean, found.axes, found.variances]


def readers() -> list[Reader]:
    """The readers, and those of networks where torch is installed."""
    found = [
        Reader("zip", "a.zip", zip_seeds, images_of, 2),
        Reader("npz", "a.npz", npz_seeds, images_of, 2),
        Reader("npy", "a.npy", npy_seeds, images_of, 2),
        Reader("idx", "a-images", lambda: [idx_bytes(GREY[:, 0])], images_of),
        Reader("image", "a.png", image_seeds, images_beside, 3),
        Reader("labels", "dataset.json", label_seeds, labelled_images),
        Reader("cifar batch", "test_batch", cifar_seeds, cifar_beside, 2),
        Reader("cifar tar", "a.tar", tar_seeds, images_of),
        Reader("webdataset", "a.tar", webdataset_seeds, images_of),
        Reader("imagenet", "a.npz", imagenet_seeds, images_of),
        Reader(
            "pickle", "a.pkl", pickle_seeds, without_result(lambda file: read_plain_pickle(file.read_bytes(), "a")), 2
        ),
        Reader("schedule", "a.json", schedule_seeds, schedule),
        Reader("array", "a.npy", npy_seeds, without_result(open_array)),
        Reader("heat maps", "a.npy", heatmap_seeds, heatmaps),
        Reader("statistics", "gaussian/a.npz", statistics_seeds, statistics, 0.5),
    ]
    if find_spec("torch") is not None and find_spec("safetensors") is not None:
        from fuzzing.networks import network_readers

        found += network_readers()
    return found
