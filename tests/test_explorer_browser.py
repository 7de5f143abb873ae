"""The explorer in a browser, as a person uses it; and what axe finds on it and on the other pages.

It needs Chromium or Chrome, and the extra `browser`, which drives it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

import pspc_rs as pspc
from explorer_pages import SIGMAS, serving, some_data, some_denoisers
from pspc_rs.experiments import explain, explain_trajectory, save_explanations, write_report
from pspc_rs.experiments.explained import percent
from pspc_rs.experiments.figures import save_figure
from pspc_rs.experiments.image_grids import sample_figure
from pspc_rs.explorer import ExplorerServer, Scene
from pspc_rs.outputs import save_table
from pspc_rs.samplers import initial_noise
from test_report import BROWSER

playwright: Any = pytest.importorskip("playwright.sync_api", reason="no playwright, the extra browser")
axe: Any = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe, the extra browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the pages with")

ROOT = Path(__file__).parents[1]
DATA = some_data()
DENOISERS = some_denoisers(DATA)
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
# Each costs seconds: every size and every scheme once.
LOOKS = [pytest.param(PHONE, "dark", id="phone-dark"), pytest.param(DESKTOP, "light", id="desktop-light")]


@pytest.fixture(scope="module")
def explorer() -> Iterator[ExplorerServer]:
    pytest.importorskip("jinja2", reason="the explorer needs jinja2")
    with serving(Scene(DATA, DENOISERS, SIGMAS)) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


class Reader:
    """A page in a browser that complains of whatever the console says, and of requests to other places.

    Args:
        browser: it.
        home: what the addresses of all requests start with.
        looks: of the window: its size and colours.
    """

    def __init__(self, browser: Any, home: str, **looks: Any) -> None:
        self.page = browser.new_page(**looks)
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._see(request.url, home))

    def _see(self, address: str, home: str) -> None:
        if not address.startswith((home, "data:")):
            self.complaints.append(f"asks for {address}")

    def open(self, address: str) -> None:
        self.page.goto(address)
        self.settle()

    def settle(self) -> None:
        """Waits until nothing is being asked for."""
        self.page.wait_for_timeout(200)  # a slider that moves is waited for
        self.page.wait_for_selector("[aria-busy]", state="detached")

    def texts(self, cells: str) -> list[str]:
        return [" ".join(text.split()) for text in self.page.locator(f"{cells} figcaption").all_inner_texts()]

    def click_pixel(self, picture: str, y: int, x: int) -> None:
        box = self.page.locator(picture).bounding_box()
        side = box["width"] / DATA.shape[2]
        self.page.locator(picture).click(position={"x": (x + 0.5) * side, "y": (y + 0.5) * side})
        self.settle()


@pytest.fixture
def reader(browser: Any, explorer: ExplorerServer) -> Iterator[Reader]:
    reads = Reader(browser, explorer.address, viewport=DESKTOP)
    yield reads
    assert reads.complaints == []
    reads.page.close()


PICTURE = "[data-part={part}] [data-view=denoised] svg.picture >> nth=0"


def expected_patches(name: str, z: Any, sigma: float, y: int, x: int, exclude: Any = None) -> list[str]:
    """What the cells of training patches must say."""
    found = explain(DENOISERS[name], z, sigma, at=[(y, x)], top=8, exclude=exclude)  # type: ignore[arg-type]
    atoms = zip(found.top_index[0, 0], found.top_view[0, 0], found.top_weight[0, 0], strict=True)
    return [
        f"{percent(weight)} image {image} class {image % 3}{', mirrored' if view else ''}"
        for image, view, weight in atoms
        if image >= 0
    ]


def test_a_click_shows_the_patches_and_weights_of_the_posterior(reader: Reader, explorer: ExplorerServer) -> None:
    reader.open(explorer.address)
    page = reader.page
    page.locator("[data-image='5']").click()
    page.locator("[name=level]").press("End")
    page.locator("[name=level]").press("ArrowLeft")
    reader.settle()
    assert page.locator("[name=sigma]").input_value() == "0.3"
    reader.click_pixel(PICTURE.format(part="a"), 6, 1)
    assert [page.locator(f"[name={axis}]").input_value() for axis in "yx"] == ["6", "1"]
    z = DATA.batch([5]) + initial_noise(1, DATA.shape, 0.3, 0, generator="numpy")
    patches = reader.texts("[data-part=a] [data-view=patches]")
    assert patches[:2] == ["noisy", "denoised"]
    assert patches[2:] == expected_patches("pspc_sq", z, 0.3, 6, 1, exclude=[5])
    # The image itself counts again.
    page.locator("[name=leave_out]").uncheck()
    reader.settle()
    assert reader.texts("[data-part=a] [data-view=patches]")[2:] == expected_patches("pspc_sq", z, 0.3, 6, 1)
    assert page.locator("[data-part=b]").is_hidden()


def test_two_denoisers_a_network_and_all_maps_are_shown_beside_each_other(
    reader: Reader, explorer: ExplorerServer
) -> None:
    reader.open(explorer.address)
    page = reader.page
    page.locator("[name=other]").select_option("empirical")
    page.locator("[name=variance]").check()
    page.locator("[name=shares]").check()
    reader.settle()
    for part in "ab":
        panel = f"[data-part={part}]"
        assert [text.split(" MSE")[0] for text in reader.texts(f"{panel} .maps")] == [
            "denoised image",
            "effective images",
            "variance",
        ]
        assert page.locator(f"{panel} [data-view=shares] svg.picture").count() > 2
    assert reader.texts("[data-view=difference]") == ["difference"]
    reader.click_pixel("[data-view=difference] svg.picture", 0, 7)
    z = DATA.batch([0]) + initial_noise(1, DATA.shape, 1.0, 0, generator="numpy")
    for part, name in (("a", "pspc_sq"), ("b", "empirical")):
        shown = reader.texts(f"[data-part={part}] [data-view=patches]")[2:]
        assert shown == expected_patches(name, z, 1.0, 0, 7, exclude=[0])
    page.locator("[name=other]").select_option("net")
    reader.settle()
    assert page.locator("[data-part=b] h2").inner_text() == "net"
    assert page.locator("[data-part=b] [data-posterior]").is_hidden()
    assert "cannot leave the image out" in page.locator("[data-part=b]").inner_text()


def test_the_slider_and_the_pictures_go_along_a_sampling_run(reader: Reader, explorer: ExplorerServer) -> None:
    reader.open(f"{explorer.address}?{urlencode({'start': 'run', 'seed': 5, 'level': 0, 'y': 2, 'x': 3})}")
    page = reader.page
    start = initial_noise(1, DATA.shape, SIGMAS[0], 5, generator="numpy")
    states = pspc.samplers.sample_heun(DENOISERS["pspc_sq"], start, [*SIGMAS, 0.0], trajectory=True)
    assert page.locator("[name=sigma]").is_disabled() and page.locator("[name=sigma]").input_value() == "4"
    page.locator("[data-step='2']").click()
    reader.settle()
    assert page.locator("[name=level]").input_value() == "2"
    patches = reader.texts("[data-part=a] [data-view=patches]")[2:]
    assert patches == expected_patches("pspc_sq", states[2], SIGMAS[2], 2, 3)
    page.locator("[name=level]").press("ArrowRight")
    reader.settle()
    assert page.locator("[data-step='3']").get_attribute("aria-pressed") == "true"
    # The address says what is shown.
    again = page.url
    page.locator("[name=start][value=image]").check()
    reader.settle()
    assert page.locator("[data-view=run] svg.picture").count() == 0
    reader.open(f"{explorer.address}?sigma=0.25")  # as from a report
    assert page.locator("[name=level]").input_value() == "2"
    assert "\u03c3 0.25" in page.locator("[data-view=noisy]").inner_text()
    reader.open(again)
    assert page.locator("[data-step='3']").get_attribute("aria-pressed") == "true"


def test_what_cannot_be_answered_is_said_in_words(browser: Any, explorer: ExplorerServer) -> None:
    reads = Reader(browser, explorer.address, viewport=DESKTOP)
    reads.open(explorer.address)
    reads.page.locator("[name=sigma]").fill("500")
    reads.page.locator("[name=other]").select_option("net")
    reads.settle()
    assert "sigma is 500" in reads.page.locator("[data-part=b] .failed").inner_text()
    assert reads.page.locator("[data-part=a] svg.picture").count() > 2, "the other denoiser is shown"
    reads.page.close()


def assert_accessible(reader: Reader) -> None:
    """Axe finds nothing serious; contrast and names of controls are such."""
    found = axe.Axe().run(reader.page).response["violations"]
    serious = [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == []
    assert reader.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_axe_finds_what_is_wrong(browser: Any) -> None:
    reads = Reader(browser, "about:", viewport=PHONE)
    reads.page.set_content("<html lang=en><title>a</title><main><h1>a</h1><input name=nameless></main>")
    with pytest.raises(AssertionError, match="nameless"):
        assert_accessible(reads)
    reads.page.close()


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_the_explorer_is_accessible(browser: Any, explorer: ExplorerServer, size: Any, scheme: str) -> None:
    everything = {"other": "empirical", "variance": 1, "shares": 1, "start": "run", "level": 1}
    reads = Reader(browser, explorer.address, viewport=size, color_scheme=scheme)
    reads.open(f"{explorer.address}?{urlencode(everything)}")
    assert_accessible(reads)
    assert reads.complaints == []
    reads.page.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The other pages: of an explanation, of a run."""
    folder = tmp_path_factory.mktemp("pages")
    square = pspc.PSPCSquare(DATA, patch_sizes=3)
    way = explain_trajectory(square, initial_noise(1, DATA.shape, 4.0), [4.0, 0.5, 0.0], shown=[1], at=[(4, 4)], top=3)
    save_explanations(folder, DATA, way.levels, way=way)
    run = folder / "run"
    samples = {name: np.zeros((4, 3, 8, 8)) for name in ("network", "pspc_sq")}
    if _has_matplotlib():
        save_figure(run / "samples", sample_figure(samples), samples)
    rows = [
        (process, denoiser, sigma)
        for process in ("forward", "reverse")
        for denoiser in ("pspc_sq", "gaussian", "cfdm")
        for sigma in (80.0, 1.0)
    ]
    columns = dict(zip(("process", "denoiser", "sigma"), map(list, zip(*rows, strict=True)), strict=True))
    save_table(run / "mse.csv", {**columns, "mse": [0.01 * (index + 1) for index in range(len(rows))]})
    pspc.patch_schedule("cifar10").save(run / "fitted.json")
    return {"explain": folder / "explain.html", "report": write_report(run)}


def _has_matplotlib() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
@pytest.mark.parametrize("name", ["explain", "report", "site"])
def test_other_pages_are_accessible(browser: Any, pages: dict[str, Path], name: str, size: Any, scheme: str) -> None:
    path = pages.get(name, ROOT / "out" / "site" / "index.html")
    if not path.is_file():
        pytest.skip("the site is not built: make docs")
    reads = Reader(browser, "file:", viewport=size, color_scheme=scheme)
    reads.open(path.as_uri())
    assert_accessible(reads)
    reads.page.close()
