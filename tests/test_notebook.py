"""What notebooks show of public objects, and the bar that they get."""

import base64
import io
import re
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import pspc_rs as pspc
from pspc_rs import progress


def bytes_of(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def picture_in(page: str) -> Image.Image | None:
    found = re.search(r'src="data:image/png;base64,([^"]+)"', page)
    return None if found is None else Image.open(io.BytesIO(base64.b64decode(found[1])))


@given(number=st.integers(1, 40), channels=st.integers(1, 5), side=st.integers(1, 9), floats=st.booleans())
def test_a_data_set_shows_at_most_twelve_of_its_images(number: int, channels: int, side: int, floats: bool) -> None:
    images = bytes_of((number, channels, side, side))
    data = pspc.ImageSet(images.astype(np.float32) / 100 - 1 if floats else images)
    picture = picture_in(data._repr_html_())
    if channels in (1, 3, 4):
        assert picture is not None
        assert picture.size == (min(number, 12) * (side + 1) + 1, side + 2)
    else:
        assert picture is None


@given(name=st.text(min_size=1))
def test_names_cannot_add_to_the_page(name: str) -> None:
    page = pspc.ImageSet(bytes_of((1, 1, 2, 2)), name=f"<b>{name}&<script>")._repr_html_()
    assert set(re.findall(r"<(\w+)", page)) == {"div", "code", "br", "img"}


@pytest.mark.parametrize("kind", ["Empirical", "Gaussian", "PSPCSquare", "SNIS"])
def test_denoisers_show_their_settings_and_their_data(kind: str) -> None:
    data = pspc.ImageSet(bytes_of((20, 3, 4, 4)))
    D = getattr(pspc, kind)(data, **({"patch_sizes": 3} if kind == "PSPCSquare" else {}))
    page = D._repr_html_()
    assert kind in page
    assert (picture_in(page) is not None) == hasattr(D, "data")


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_posteriors_show_what_they_found(batch: int) -> None:
    data = pspc.ImageSet(bytes_of((20, 1, 4, 4)))
    P = pspc.PSPCSquare(data, patch_sizes=3).posterior(data.batch(range(batch)), 0.01, top=2)
    page = P._repr_html_()
    rows = re.findall(r"<tr>(<td>.*?)</tr>", page)
    assert len(rows) == min(batch, 5)
    for query, row in enumerate(rows):
        cells = re.findall(r"<td>(.*?)</td>", row)
        assert cells[:1] + cells[5:6] == [str(query)] * 2  # a training image finds itself
        assert float(cells[4]) == pytest.approx(1)


def test_tensors_are_shown_as_arrays_are() -> None:
    torch = pytest.importorskip("torch")
    D = pspc.PSPCSquare(pspc.ImageSet(bytes_of((20, 1, 4, 4))), patch_sizes=3)
    z = np.zeros((2, 1, 4, 4), np.float32)
    assert D.posterior(torch.from_numpy(z), 0.5)._repr_html_() == D.posterior(z, 0.5)._repr_html_()


def test_a_kernel_with_widgets_gets_the_bar_of_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    class Bar:
        def __init__(self, **options: Any) -> None:
            made.append(options)
            self.total, self.delay = options["total"], 0.0

        def update(self, number: int) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1)))
    monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Bar))
    monkeypatch.setattr(progress, "find_spec", lambda name: name == "ipywidgets")
    assert progress.in_notebook()
    with progress.reporting(None, "img", "reading", 5000) as report:
        report(1, 5000)
    assert [options["desc"] for options in made] == ["reading"]
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    assert not progress.in_notebook()
