"""Optional packages that are absent, and ones that are broken."""

import subprocess
import sys
from pathlib import Path

import pytest

from pspc_rs.arrays import import_safetensors, import_torch
from pspc_rs.errors import MissingDependencyError
from pspc_rs.extras import import_extra, import_pillow


def broken(folder: Path, package: str, code: str) -> None:
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(code)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('libx.so.9: cannot open shared object file')", "libx.so.9: cannot open shared object file"),
        ("raise OSError('[WinError 126] no module')", "WinError 126"),
        ("import no_such_part_of_it", "No module named 'no_such_part_of_it'"),
        ("raise RuntimeError()", "RuntimeError"),
        ("raise ValueError('first\\nsecond')", "first$"),
    ],
)
def test_a_broken_package_is_reported_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, reason: str
) -> None:
    broken(tmp_path, "pspc_broken_package", code)
    monkeypatch.syspath_prepend(str(tmp_path))
    message = rf"a figure needs pspc_broken_package, which is installed but cannot be imported: .*{reason}"
    with pytest.raises(MissingDependencyError, match=message) as caught:
        import_extra("pspc_broken_package", "a figure", "plot")
    assert "pip install" not in str(caught.value) and caught.value.__cause__ is not None


def test_an_absent_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match=r'a file needs torch: pip install "pspc-rs\[torch\]"$'):
        import_torch("a file")
    with pytest.raises(MissingDependencyError, match=r"needs safetensors: pip install"):
        import_safetensors("a file", "torch")
    with pytest.raises(MissingDependencyError, match=r"a picture needs PIL: pip install pillow$"):
        import_pillow()


@pytest.mark.parametrize(
    ("package", "code", "words"),
    [
        (
            "torch",
            # With this variable torch has other numbers than the core, and has to draw them itself.
            "import os; os.environ['ATEN_CPU_CAPABILITY'] = 'default'; pspc.sample(D, 1)",
            ["libx.so.9", "generator='numpy' works without it"],
        ),
        ("torch", "from pspc_rs.networks import Adapter", ["libx.so.9"]),
        ("PIL", "pspc_rs.images.save_png('a.png', np.zeros((2, 2), np.uint8))", ["libx.so.9", "a picture needs PIL"]),
        ("matplotlib", "from pspc_rs.experiments.figures import new_figure; new_figure(1, 1)", ["libx.so.9"]),
        (
            "azula",
            "from pspc_rs.networks import azula_denoiser; azula_denoiser(D, lambda t: (1 + 0 * t, t))",
            ["libx.so.9", "azula_denoiser needs azula"],
        ),
        ("jinja2", "open('a.csv', 'w').write('a\\n1\\n'); pspc_rs.experiments.write_report('.')", ["libx.so.9"]),
    ],
)
def test_broken_packages_are_told_where_they_are_used(
    tmp_path: Path, package: str, code: str, words: list[str]
) -> None:
    broken(tmp_path, package, "raise ImportError('libx.so.9: cannot open shared object file')")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import numpy as np, pspc_rs, pspc_rs as pspc\n"
        "D = pspc.Empirical(pspc.ImageSet(np.zeros((2, 1, 8, 8), np.uint8)))\n"
        f"assert pspc.sample(D, 1, num_steps=2, generator='numpy').shape == (1, 1, 8, 8)\n{code}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "MissingDependencyError" in last
    assert all(word in last for word in words), last
