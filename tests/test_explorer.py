"""The explorer without a browser: its numbers are those of the API, and its server answers this machine alone."""

import json
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
from command_line import fail, invoke, start
from explorer_pages import LABELS, SIGMAS, answer, get, refusal, serving, some_data, some_denoisers
from pspc_rs.errors import InvalidValueError, OutputError, ShapeError
from pspc_rs.experiments import Subject, explain, nearest_images
from pspc_rs.experiments.explain_page import ExplainPage
from pspc_rs.experiments.explained import Explained, training_name
from pspc_rs.explorer import ExplorerServer, Scene, Views, Work, server, work
from pspc_rs.explorer.questions import Question
from pspc_rs.explorer.server import is_of_this_machine
from pspc_rs.explorer.work import Abandoned, Job, Memory
from pspc_rs.samplers import initial_noise

pytest.importorskip("jinja2", reason="the explorer needs jinja2")

DATA = some_data()
DENOISERS = some_denoisers(DATA)


@pytest.fixture(scope="module")
def explorer() -> Iterator[ExplorerServer]:
    with serving(Scene(DATA, DENOISERS, SIGMAS)) as running:
        yield running


def noisy(image: int, sigma: float, seed: int) -> Any:
    return DATA.batch([image]) + initial_noise(1, DATA.shape, sigma, seed, generator="numpy")


# Numbers


@given(
    st.sampled_from(["pspc_sq", "empirical"]),
    st.integers(0, 59),
    st.sampled_from([0.05, 0.4, 3.0]),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 7),
    st.integers(0, 7),
)
def test_patches_are_those_of_the_posterior(
    explorer: ExplorerServer, name: str, image: int, sigma: float, seed: int, leave_out: bool, y: int, x: int
) -> None:
    asked = {
        "denoiser": name,
        "image": image,
        "sigma": sigma,
        "seed": seed,
        "leave_out": int(leave_out),
        "y": y,
        "x": x,
    }
    found = answer(explorer, "patches", **asked)
    D: Any = DENOISERS[name]
    z, exclude = noisy(image, sigma, seed), [image % 30] if leave_out else None
    posterior = D.posterior(z, sigma, 8, exclude=exclude)
    component = found["component"]
    assert D.masks_at(sigma)[component, y, x]
    assert component == explain(D, z, sigma, at=[(y, x)], exclude=exclude).components[0]
    expected = zip(
        *(getattr(posterior, f"top_{what}")[0, component] for what in ("index", "view", "weight")), strict=True
    )
    assert [(one["image"], one["view"], one["weight"]) for one in found["patches"]] == [
        atom for atom in expected if atom[0] >= 0
    ]
    assert not (leave_out and any(one["image"] == image % 30 for one in found["patches"]))
    assert found["effective_images"] == posterior.effective_images[0, component]
    for one in found["patches"]:
        assert f"image {one['image']}<" in found["html"]


def test_maps_shares_and_differences_are_those_of_the_api(explorer: ExplorerServer) -> None:
    asked = {"image": 7, "sigma": 0.4, "seed": 2}
    z = noisy(7, 0.4, 2)
    expected = explain(pspc.PSPCSquare(DATA, patch_sizes=3), z, 0.4)
    shown = answer(explorer, "denoised", denoiser="pspc_sq", **asked)
    assert shown["effective_images"] == expected.effective_images[0].tolist()
    assert shown["error"] == pytest.approx(float(np.square(expected.denoised - DATA.batch([7])).mean()))
    assert shown["windows"] == "36 windows of 3 x 3 pixels"
    assert answer(explorer, "variance", denoiser="pspc_sq", **asked)["variance"] == expected.variance[0].tolist()
    shares = answer(explorer, "shares", denoiser="pspc_sq", **asked)
    largest = shares["largest"][0]
    assert largest == {"image": expected.attribution[0].argmax(), "share": expected.attribution[0].max()}
    near = nearest_images(DATA, expected.denoised)
    assert shares["nearest"] == {"images": near.index[0].tolist(), "is_copy": bool(near.is_copy[0])}
    apart = answer(explorer, "difference", denoiser="net", other="gaussian", **asked)["mean_squared"]
    G = pspc.Gaussian(DATA, shrinkage=0.1, cache=False)
    assert apart == pytest.approx(float(np.square(z / 2 - G(z, 0.4)).mean()))
    assert "the two are the same" in answer(explorer, "difference", denoiser="net", other="net", **asked)["html"]


def test_denoisers_without_posteriors_show_what_they_have(explorer: ExplorerServer) -> None:
    for name in ("gaussian", "net"):
        shown = answer(explorer, "denoised", denoiser=name, leave_out=1)
        assert not shown["has_posterior"] and "cannot leave the image out" in shown["html"]
        assert answer(explorer, "patches", denoiser=name, y=1, x=1) == {"html": "", "patches": []}
        assert answer(explorer, "variance", denoiser=name) == {"html": ""}
        assert "largest" not in answer(explorer, "shares", denoiser=name)
        assert "has no posteriors" in refusal(explorer, 400, "explain", denoiser=name, y=1, x=1)


def test_a_run_is_that_of_the_sampler(explorer: ExplorerServer) -> None:
    scene = explorer.views.scene
    start_of_run = initial_noise(1, DATA.shape, SIGMAS[0], 5, generator="numpy")
    states = pspc.samplers.sample_heun(DENOISERS["pspc_sq"], start_of_run, [*SIGMAS, 0.0], trajectory=True)
    for step, sigma in enumerate(SIGMAS):
        asked = Question("run", image=0, sigma=0.0, step=step, seed=5, leave_out=False, runner="pspc_sq")
        np.testing.assert_array_equal(scene.noisy(asked), states[step])
        assert scene.sigma(asked) == answer(explorer, "noisy", start="run", step=step, seed=5)["sigma"] == sigma
    shown = answer(explorer, "run", runner="pspc_sq", seed=5)["html"]
    assert re.findall(r'data-step="(\d)"', shown) == ["0", "1", "2", "3"] and "the sample" in shown
    # A second denoiser sees the states of the first one's run.
    found = answer(explorer, "patches", start="run", step=2, seed=5, runner="pspc_sq", denoiser="empirical", y=0, x=0)
    expected = pspc.Empirical(DATA).posterior(states[2], SIGMAS[2], 1)
    assert found["patches"][0]["image"] == expected.top_index.item()


def test_the_page_of_an_explanation_is_that_of_explain(explorer: ExplorerServer) -> None:
    asked = {"denoiser": "pspc_sq", "image": 37, "sigma": 0.3, "seed": 1, "leave_out": 1, "y": 2, "x": 5}
    status, text = get(explorer, "explain", {**asked, "as": "page"})
    level = explain(pspc.PSPCSquare(DATA, patch_sizes=3), noisy(37, 0.3, 1), 0.3, at=[(2, 5)], top=8, exclude=[7])
    name = training_name(DATA, 37)
    assert name == "training image 7, class 1, mirrored"
    subject = Subject(f"{name}, left out", DATA.batch([37])[0])
    page = ExplainPage(DATA, Explained([level], subjects=[subject]), "", {}).render()
    sections = r'(?s)<section aria-labelledby="image-0">.*?</section>'
    assert status == 200 and re.findall(sections, text) == re.findall(sections, page) != []


def test_images_of_other_sets_are_named_and_not_left_out() -> None:
    others = pspc.ImageSet(DATA.images[:5].copy(), name="others")
    with serving(Scene(DATA, DENOISERS, SIGMAS, images=others)) as running:
        assert "image 4 of others" in answer(running, "noisy", image=4)["html"]
        found = answer(running, "patches", denoiser="empirical", image=4, sigma=0.01, leave_out=1, y=0, x=0)
        assert found["patches"][0]["image"] == 4, "the image is not that of the training set, though it looks alike"
        assert "image is 5; allowed are integers from 0 to 4" in refusal(running, 400, "noisy", image=5)
        assert 'name="leave_out"' not in get(running, "")[1]


def test_scenes_of_other_images_or_of_no_denoisers_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="at least one"):
        Scene(DATA, {}, SIGMAS)
    with pytest.raises(ShapeError, match=r"the images are of \[1, 2, 2\]"):
        Scene(DATA, DENOISERS, SIGMAS, images=pspc.ImageSet(np.zeros((2, 1, 2, 2), np.uint8)))


# What is asked


@pytest.mark.parametrize(
    ("view", "asked", "why"),
    [
        ("noisy", {"image": "ten"}, "image is 'ten'; allowed are integers from 0 to 59"),
        ("noisy", {"image": "60"}, "image is 60; allowed are integers from 0 to 59"),
        ("noisy", {"image": "9" * 4000}, "image is an integer of 13288 bits"),
        ("noisy", {"sigma": "0"}, "sigma is 0; allowed are numbers"),
        ("noisy", {"sigma": "nan"}, "sigma is nan"),
        ("noisy", {"sigma": "1e30"}, "sigma is 1e+30"),
        ("denoised", {"sigma": "100", "denoiser": "net"}, "sigma is 100"),
        ("noisy", {"seed": "-1"}, "seed is -1"),
        ("noisy", {"start": "there"}, "start is 'there'; allowed are image, run"),
        ("noisy", {"start": "run", "step": "4"}, "step is 4; allowed are integers from 0 to 3"),
        ("noisy", {"<i>": "1"}, "'<i>' is not known here"),
        ("noisy", {"part": "c"}, "part is 'c'; allowed are a, b"),
        ("denoised", {}, "denoiser is missing"),
        ("denoised", {"denoiser": "mine"}, "denoiser is 'mine'; allowed are pspc_sq, empirical, gaussian, net"),
        ("patches", {"denoiser": "empirical", "y": "8", "x": "0"}, "y is 8; allowed are integers from 0 to 7"),
    ],
)
def test_bad_values_are_refused_with_a_reason(explorer: ExplorerServer, view: str, asked: Any, why: str) -> None:
    assert why in refusal(explorer, 400, view, **asked)


@given(
    st.sampled_from(["images", "noisy", "denoised", "patches", "difference", "run"]),
    st.dictionaries(
        st.sampled_from(["start", "image", "sigma", "seed", "step", "denoiser", "y", "x", "first", "runner"]),
        st.one_of(st.text(max_size=5), st.integers().map(str), st.floats().map(str), st.sampled_from(["run", "net"])),
    ),
)
def test_any_text_is_answered_or_refused(explorer: ExplorerServer, view: str, asked: dict[str, str]) -> None:
    status, text = get(explorer, view, asked)
    assert status in (200, 202, 400) and isinstance(json.loads(text), dict)


@given(
    st.one_of(st.text(max_size=30), st.from_regex(r"(localhost|127\.0\.0\.1|\[::1\])[:.a-z0-9]{0,6}", fullmatch=True))
)
def test_only_names_of_this_machine_are_taken(host: str) -> None:
    expected = re.fullmatch(r"(?ai:localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?", host) is not None
    assert is_of_this_machine(host) == expected


def test_other_hosts_and_other_sites_get_nothing(explorer: ExplorerServer) -> None:
    for host in ("evil.org", f"evil.org:{explorer.server_port}", "127.0.0.1.evil.org", ""):
        status, text = get(explorer, "", headers={"Host": host})
        assert status == 403 and "loopback" in text and "<html" not in text
    assert get(explorer, "", headers={"Host": "localhost:9000"})[0] == 200, "through a tunnel the port is another one"
    assert get(explorer, "noisy", headers={"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert get(explorer, "", headers={"Sec-Fetch-Site": "cross-site"})[0] == 200, "other pages may link to the page"
    for path in ("../etc/passwd", "/[", "%00", "explore.js/..", "noisy/"):
        assert f"there is no /{path.lstrip('/')};" in refusal(explorer, 404, path)


def test_the_page_loads_nothing_from_elsewhere(explorer: ExplorerServer) -> None:
    text = get(explorer, "")[1]
    assert set(re.findall(r"""(?:src|href)=["']([^"']*)""", text)) == {"data:,", "explore.js"}
    assert "url(" not in text and "<b>data" not in text and "&lt;b&gt;data" in text
    assert "http" not in get(explorer, "explore.js")[1].replace("http://www.w3.org/2000/svg", "")


# Long work


def test_long_work_says_how_far_it_is_and_blocks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_SECONDS_OF_PATIENCE", 0.05)
    goes_on = threading.Event()

    def slow(z: Any, sigma: Any) -> Any:
        assert goes_on.wait(60)
        return z

    with serving(Scene(DATA, {"slow": pspc.Network(slow), "empirical": DENOISERS["empirical"]}, SIGMAS)) as running:
        status, text = get(running, "denoised", {"denoiser": "slow"})
        assert status == 202 and set(json.loads(text)) == {"done", "total", "what"}
        assert answer(running, "denoised", denoiser="empirical")["has_posterior"], "others are answered meanwhile"
        assert get(running, "denoised", {"denoiser": "slow"})[0] == 202
        goes_on.set()
        assert answer(running, "denoised", denoiser="slow")["error"] > 0


def test_a_network_that_fails_is_the_explorers_fault_not_the_browsers() -> None:
    def broken(z: Any, sigma: Any) -> Any:
        raise RuntimeError("no such layer")

    with serving(Scene(DATA, {"broken": pspc.Network(broken)}, SIGMAS)) as running:
        assert "no such layer" in refusal(running, 500, "denoised", denoiser="broken")


def test_work_that_nobody_waits_for_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_SECONDS_WITHOUT_WAITERS", 0.0)
    jobs, ended = Work(), threading.Event()

    def endless(progress: Any) -> None:
        try:
            while True:
                progress(0, 1)
        finally:
            ended.set()

    job = jobs.ask("key", endless)
    assert ended.wait(60) and job.wait(60, lambda: True) and job.was_abandoned
    assert jobs.ask("key", lambda progress: 3).outcome.result(60) == 3, "asked again, it starts anew"
    jobs.close()


def test_closing_ends_work_that_is_waited_for() -> None:
    jobs = Work()

    def endless(progress: Any) -> None:
        while True:
            progress(0, 1)

    job = jobs.ask("key", endless)
    threading.Timer(0.1, jobs.close).start()
    assert job.wait(60, lambda: True) and job.was_abandoned


def test_results_are_computed_once_and_failures_are_not_kept() -> None:
    memory, calls = Memory(2), []
    barrier = threading.Barrier(4)

    def compute() -> int:
        calls.append(1)
        return len(calls)

    def ask() -> None:
        barrier.wait()
        assert memory.get("key", compute) == 1

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert calls == [1]

    def fail_with(error: Exception) -> int:
        raise error

    for error in (Abandoned(), ZeroDivisionError()):
        with pytest.raises(type(error)):
            memory.get("other", partial(fail_with, error))
    assert memory.get("other", lambda: 5) == 5
    assert [memory.get(key, compute) for key in ("third", "key")] == [2, 3], "the oldest result makes room"
    assert repr(Job()) == "Job('', 0 of 0)"


# The command


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", images=DATA.images, labels=LABELS)
    return tmp_path / "data.npz"


def test_the_command_serves_until_it_is_interrupted(data: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("no signal of Ctrl-C can be sent to one process")
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background ignores it
    try:
        process = start("explore", "--data", data, "--patch-sizes", 3, "--port", 0, "--no-browser", "--n-steps", 3)
    finally:
        signal.signal(signal.SIGINT, earlier)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.match(r"http://127\.0\.0\.1:(\d+)/ ", line)
        assert address is not None, process.communicate()
        with socket.create_connection(("127.0.0.1", int(address[1])), 60) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and errors == "Ended.\n"
    finally:
        process.kill()
        process.communicate()


def test_a_port_in_use_is_named(data: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = fail(1, "explore", "--data", data, "--denoiser", "empirical", "--port", port, "--no-browser")
        assert f"port {port} is in use; give another one with --port, or --port 0" in message
        with pytest.raises(OutputError, match="in use"):
            ExplorerServer(Views(Scene(DATA, DENOISERS, SIGMAS)), port)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--denoiser", "nothing"], 2, "'nothing' is not a denoiser"),
        (["--denoiser", "empirical,empirical"], 2, "is empty or taken"),
        (["--images-split", "test"], 2, "--images-split is for --images"),
        (["--port", "70000"], 2, "70000 is not in the range"),
        (["--images", "digits"], 1, "--images has images of shape [1, 8, 8]; those of --data are [3, 8, 8]"),
        ([], 1, "the default schedule is for 32 x 32 images"),
    ],
)
def test_bad_options_end_in_one_line(data: Path, options: list[str], code: int, message: str) -> None:
    if "digits" in options:
        pytest.importorskip("sklearn")
        options = [*options, "--denoiser", "empirical"]
    assert message in fail(code, "explore", "--data", data, "--no-browser", *options)


def test_the_command_without_jinja2_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert "pspc-rs[explore]" in fail(1, "explore", "--data", "no such data")


def test_the_command_offers_every_denoiser(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[ExplorerServer] = []

    def serve(self: ExplorerServer, poll_interval: float) -> None:
        served.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(ExplorerServer, "serve_forever", serve)
    options = ["--denoiser", "ls,half=explorer_pages:halve", "--patch-sizes", 3, "--protocol", "edm18"]
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    result = invoke("explore", "--data", data, "--port", 0, "--images", data, *options)
    assert result.exit_code == 0 and result.stdout == f"{served[0].address}  (Ctrl-C ends it)\n"
    assert opened == [served[0].address]
    scene = served[0].views.scene
    assert [*scene.denoisers] == ["ls", "half"] and not scene.images_are_data
    assert scene.has_posterior("ls") and not scene.has_posterior("half")
    assert invoke("explore", "--data", data, "--port", 0, "--no-browser", *options).exit_code == 0
    assert len(opened) == 1
    page = served[0].views.page()
    assert '<option value="ls">LS</option><option value="half">half</option>' in page
