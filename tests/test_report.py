"""The report of a run: what it shows, and that a browser shows it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
from pspc_rs.errors import DTypeError, InvalidValueError, MissingDependencyError, MissingFileError, OutputError
from pspc_rs.experiments import SimilarityMatrix, mse_figure, similarity_figure
from pspc_rs.experiments.display import colours_of
from pspc_rs.experiments.figures import axes_of, save_figure
from pspc_rs.experiments.image_grids import sample_figure
from pspc_rs.experiments.report import write_report
from pspc_rs.experiments.results import Row
from pspc_rs.images import image_grid, save_png
from pspc_rs.outputs import save_table
from pspc_rs.provenance import provenance, save_record

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as commands leave it."""
    folder = tmp_path / "mnist run"
    random = np.random.default_rng(0)
    samples = {name: random.normal(size=(9, 1, 8, 8)) for name in ("network", "PSPC-Square")}
    save_figure(folder / "figures" / "samples_0.3", sample_figure(samples), samples, {"name": list(samples)})
    save_png(folder / "grid.png", image_grid(random.normal(size=(64, 3, 32, 32))))
    rows = [(p, d, s) for p in ("forward", "reverse") for d in ("pspc_sq", "gaussian") for s in (80.0, 1.0, 0.01)]
    mse = [0.01 * (index + 1) for index in range(len(rows))]
    columns = dict(zip(("process", "denoiser", "sigma"), map(list, zip(*rows, strict=True)), strict=True))
    save_table(folder / "mse.csv", {**columns, "mse": mse})
    pspc.patch_schedule("cifar10").save(folder / "fitted.json")
    save_record(folder / "compare.json", provenance("compare", {"seed": 0, "text": "<script>alert(1)</script>"}))
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "part.json").write_text("{}")
    return folder


def test_everything_in_the_folder_is_on_the_page(run: Path) -> None:
    path = write_report(run)
    text = path.read_text(encoding="utf-8")
    assert path == run / "report.html"
    assert text.count("<img ") == 2
    assert "figures/samples_0.3.png; numbers in figures/samples_0.3.csv" in text
    assert text.count("<svg ") == 2
    assert "MSE per value, [-1, 1] pixels: process forward" in text
    assert '<td>80</td><td class="least">0.01</td><td>0.04</td>' in text
    assert "cifar10, images of 32 x 32" in text
    assert "isa_available" in text
    assert "part.json" not in text
    for name in ("Figures", "Results", "Schedules", "Tables", "Settings", "Machine"):
        assert f">{name}</h2>" in text
    assert "could not be read" not in text
    assert path.read_bytes() == write_report(run).read_bytes()


def test_the_page_is_self_contained_and_harmless(run: Path) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "url(" not in text


def test_noise_levels_lead_to_the_explorer_where_one_is_named(run: Path) -> None:
    text = write_report(run, explorer="http://127.0.0.1:8750/").read_text(encoding="utf-8")
    links = re.findall(r'<a href="(http[^"]*)"[^>]*>([^<]*)</a>', text)
    assert links == [(f"http://127.0.0.1:8750/?sigma={sigma}", sigma) for sigma in ("80", "1", "0.01")] * 2
    assert "lead to the explorer" in text
    with pytest.raises(InvalidValueError, match="explorer is 'javascript:alert"):
        write_report(run, explorer="javascript:alert(1)")


def test_what_cannot_be_read_is_listed(run: Path) -> None:
    picture = (run / "grid.png").read_bytes()
    (run / "cut.png").write_bytes(picture[: len(picture) // 2])
    (run / "bad.json").write_text("{")
    (run / "list.json").write_text("[1]")
    (run / "ragged.csv").write_text("a,b\n1\n")
    (run / "empty.csv").write_text("")
    text = write_report(run).read_text(encoding="utf-8")
    assert "Files that could not be read" in text
    for name in ("cut.png", "bad.json", "list.json", "ragged.csv", "empty.csv"):
        assert f"<code>{name}</code>: " in text
    assert text.count("<img ") == 2


def test_long_tables_are_cut_and_say_so(run: Path) -> None:
    save_table(run / "long.csv", {"x": list(range(500))})
    text = write_report(run).read_text(encoding="utf-8")
    assert "The first 400 of 500 rows." in text
    assert "<td>399</td>" in text
    assert "<td>400</td>" not in text


def test_denoisers_share_a_table_whatever_their_settings(tmp_path: Path) -> None:
    rows = [("gaussian", "a1", 0.1), ("gaussian", "a2", 0.2), ("pspc_sq", "b1", 0.3)]
    columns = dict(zip(("denoiser", "settings", "mse"), map(list, zip(*rows, strict=True)), strict=True))
    save_table(tmp_path / "mse.csv", {"process": ["forward"] * 3, "sigma": [1.0] * 3, **columns})
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert text.count("<svg ") == 1
    assert '<td>1</td><td class="least">0.1</td><td>0.2</td><td>0.3</td>' in text
    assert '<th scope="col">Gaussian (2)</th>' in text
    save_table(tmp_path / "mse.csv", {"settings": ["a", "b"], "side": [3, 3], "sigma": [1.0] * 2, "mse": [0.1, 0.2]})
    assert write_report(tmp_path).read_text(encoding="utf-8").count("<svg ") == 2


def test_each_question_has_one_chart(run: Path) -> None:
    figure = (run / "grid.png").read_bytes()
    for name in ("mse", "fit"):
        (run / f"{name}.png").write_bytes(figure)
    save_table(run / "fit.csv", {"side": [3, 5], "sigma": [1.0, 1.0], "mse": [0.1, 0.2]})
    text = write_report(run).read_text(encoding="utf-8")
    assert "<figcaption>mse.png" not in text  # drawn by the page
    assert "<figcaption>fit.png" in text  # marks what was chosen
    assert text.count("<svg ") == 2


def test_forward_and_reverse_of_a_target_stand_side_by_side(tmp_path: Path) -> None:
    names = [(process, target) for process in ("forward", "reverse") for target in ("a", "b")]
    columns: dict[str, list[object]] = {
        "process": [name[0] for name in names],
        "target": [name[1] for name in names],
        "sigma": [1.0] * 4,
    }
    save_table(
        tmp_path / "mse.csv", {**columns, "denoiser": ["ls"] * 4, "mse": [0.1] * 4, "standard_error": [0.02] * 4}
    )
    text = write_report(tmp_path).read_text(encoding="utf-8")
    order = re.findall(r"<h3>MSE per value, \[-1, 1\] pixels: process (\w+), target (\w)</h3>", text)
    assert order == [("forward", "a"), ("reverse", "a"), ("forward", "b"), ("reverse", "b")]
    assert text.count("<td>0.1 ± 0.020</td>") == 4
    assert text.count('<polygon class="band"') == 4


def test_a_denoiser_has_one_colour_and_one_name_in_figures_and_charts(tmp_path: Path) -> None:
    row: Row = {
        "process": "forward",
        "target": "net",
        "settings": "0",
        "sigma": 1.0,
        "mse": 0.1,
        "standard_error": 0.01,
    }
    rows: list[Row] = [{**row, "denoiser": name} for name in ("mine", "pspc_sq", "gaussian")]
    axis = mse_figure(rows).axes[0]
    drawn = {line.get_label(): line.get_color() for line in axis.lines}
    save_table(tmp_path / "mse.csv", {name: [row[name] for row in reversed(rows)] for name in rows[0]})
    text = write_report(tmp_path).read_text(encoding="utf-8")
    legend = dict(re.findall(r'<li><span style="background:(.*?)"></span>(.*?)</li>', text))
    assert {name: colour for colour, name in legend.items()} == dict(
        zip(("mine", "PSPC-Square", "Gaussian"), drawn.values(), strict=True)
    )


@given(names=st.lists(st.sampled_from(["pspc_sq", "empirical", "ls", "a", "b", "c", "d"])))
def test_colours_are_distinct_and_those_of_known_denoisers_are_fixed(names: list[str]) -> None:
    found = colours_of(names)
    assert set(found) == set(names)
    assert len(set(found.values())) == len(set(names))
    for name in {"pspc_sq", "empirical", "ls"} & set(names):
        assert found[name] == colours_of([name])[name]


def test_figures_of_one_panel_are_drawn_on_axes_that_are_given() -> None:
    row: Row = {"process": "forward", "target": "net", "denoiser": "ls", "settings": "0", "mse": 0.1}
    rows: list[Row] = [{**row, "standard_error": 0.01, "sigma": sigma} for sigma in (1.0, 0.1)]
    figure, axis = axes_of(None, 4, 3)
    assert mse_figure(rows, ax=axis) is figure
    assert [np.asarray(line.get_xdata()).tolist() for line in axis.lines] == [[1.0, 0.1]]
    with pytest.raises(InvalidValueError, match="rows are of 2"):
        mse_figure([*rows, {**rows[0], "process": "reverse"}], ax=axis)
    with pytest.raises(DTypeError, match="allowed are axes"):
        mse_figure(rows, ax=figure)  # type: ignore[arg-type]
    matrix = SimilarityMatrix(("ls", "els"), np.eye(2), np.zeros((2, 2)), np.zeros((2, 2)))
    figure, axis = axes_of(None, 4, 3)
    assert similarity_figure(matrix, "pixels", ax=axis) is figure
    assert [label.get_text() for label in axis.get_xticklabels()] == ["LS", "ELS"]


def test_results_without_anything_positive_have_no_chart(run: Path) -> None:
    save_table(run / "mse.csv", {"denoiser": ["a"], "sigma": [1.0], "mse": [0.0]})
    text = write_report(run).read_text(encoding="utf-8")
    assert "<svg" not in text
    assert "<td>1</td><td>0</td>" in text


def test_nothing_to_report_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no folder"):
        write_report(tmp_path / "none")
    with pytest.raises(InvalidValueError, match="nothing to report on"):
        write_report(tmp_path)
    save_table(tmp_path / "a.csv", {"x": [1]})
    (tmp_path / "page").mkdir()
    with pytest.raises(OutputError):
        write_report(tmp_path, tmp_path / "page")
    assert write_report(tmp_path, tmp_path / "new" / "b.html").is_file()


def test_a_report_without_jinja2_names_the_extra(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"pspc-rs\[report\]"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_whatever_files_say_is_escaped(tmp_path: Path) -> None:
    nasty = """<b a="1" b='2'>&amp;</b>"""
    save_table(tmp_path / "mse.csv", {"denoiser": [nasty], "sigma": [1.0], "mse": [0.5], "target": [nasty]})
    save_record(tmp_path / "record.json", {nasty: {nasty: [nasty]}})
    save_record(tmp_path / "schedule.json", {"kind": "patch", "name": nasty, "image_size": [nasty]})
    (tmp_path / "&.png").write_bytes(b"<i>")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<b" not in text.replace("<body>", "")
    assert text.count("&lt;b a=&#34;1&#34; b=&#39;2&#39;&gt;&amp;amp;&lt;/b&gt;") >= 8
    assert "<code>&amp;.png</code>" in text


HARNESS = """<!DOCTYPE html><title>check</title>
<iframe id="frame" width="390" height="800" src="{page}"></iframe>
<script>
addEventListener("load", () => {{
  const page = document.getElementById("frame").contentDocument;
  const found = {{
    widths: Array.from(page.images, image => image.naturalWidth),
    shown: Array.from(page.images, image => image.getBoundingClientRect().width),
    scroll: page.documentElement.scrollWidth, client: page.documentElement.clientWidth,
  }};
  document.body.innerHTML = "<pre>" + JSON.stringify(found) + "</pre>";
}});
</script>"""


def browse(*arguments: object) -> "subprocess.CompletedProcess[str]":
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"]
    command = [BROWSER, *options, *(str(one) for one in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the page with")
def test_a_browser_shows_every_picture_on_a_phones_width_without_complaint(run: Path, tmp_path: Path) -> None:
    page = write_report(run)
    (tmp_path / "harness.html").write_text(HARNESS.format(page=page.as_uri()))
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    harness = (tmp_path / "harness.html").as_uri()
    done = browse(profile, "--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", harness)
    assert "CONSOLE" not in done.stderr
    seen: Any = json.loads(re.findall(r"<pre>(.*)</pre>", done.stdout)[0])
    assert len(seen["widths"]) == 2
    assert min(seen["widths"]) > 0
    assert 0 < min(seen["shown"]) <= max(seen["shown"]) <= 390
    assert seen["scroll"] <= seen["client"]
    picture = tmp_path / "page.png"
    done = browse(profile, f"--screenshot={picture}", "--window-size=1200,1600", page.as_uri())
    assert "CONSOLE" not in done.stderr
    from PIL import Image

    with Image.open(picture) as image:
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 50
