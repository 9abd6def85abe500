"""What is installed alone: a wheel holds what it needs, and what lacks an extra says which, in one line."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from safetensors.torch import load_file

from dts_mini import compress

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = [
    *("IPython", "PIL", "dask", "datasets", "distributed", "huggingface_hub", "ipykernel", "joblib", "jupytext"),
    *("latex2mathml", "matplotlib", "mlxtend", "nbclient", "nbconvert", "nbformat", "open_clip", "peft", "psutil"),
    *("scipy", "sklearn", "torchvision", "tqdm", "traitlets", "transformers", "zmq"),
]


def lean(code: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """Runs code as where nothing but the library's own dependencies is installed, from another folder."""
    before = f"import sys\nsys.modules.update(dict.fromkeys({EXTRAS}))\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", before + code, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


COMMAND = "from dts_mini.cli import main\nsys.exit(main(sys.argv[1:]))"


def test_the_library_and_its_files_need_no_extra(files):
    lines = [
        "compress --base base.safetensors --expert a.safetensors --out a.dts.safetensors --method drc --budget 2000"
    ]
    lines += ["inspect a.dts.safetensors"]
    lines += ["rebuild --base base.safetensors --delta a.dts.safetensors --out again.safetensors"]
    lines += ["merge --method ties --base base.safetensors --experts a.safetensors b.safetensors --out m.safetensors"]
    for line in lines:
        found = lean(COMMAND, *line.split(), folder=files.folder)
        assert (found.returncode, found.stderr) == (0, ""), line
    code = "import dts_mini.serving.live, dts_mini.serving.server, dts_mini.serving.lora, dts_mini.peers, dts_mini.hub"
    assert lean(code, folder=files.folder).returncode == 0


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        ("evaluate --suite mini", "suites"),
        ("reproduce --suite clip-vit-b-32 --dry-run", "full"),
        ("push a.dts.safetensors --repo a/b", "hub"),
        ("pull a/b --out x.dts.safetensors", "hub"),
        ("inspect a/b", "hub"),
        ("compress --base a/b --expert a.safetensors --out x.dts.safetensors", "hub"),
        ("compress --base base.safetensors --expert a.safetensors --out x --scheduler tcp://127.0.0.1:1", "full"),
    ],
)
def test_what_lacks_an_extra_says_which_in_one_line(files, line, extra):
    compress(load_file(files.base), load_file(files.a)).save(files.folder / "a.dts.safetensors")
    found = lean(COMMAND, *line.split(), folder=files.folder)
    assert (found.returncode, found.stdout) == (1, "")
    assert f"pip install 'dts_mini[{extra}]'" in found.stderr
    assert found.stderr.count("\n") == 1


def test_the_tutorial_says_what_it_lacks(tmp_path):
    found = lean("from dts_mini.tutorial import main\nsys.exit(main())", folder=tmp_path)
    assert found.returncode == 1
    assert "pip install 'dts_mini[notebooks]'" in found.stderr
    assert "Traceback" not in found.stderr


def test_the_data_and_the_notebooks_of_the_package_are_those_of_the_repository():
    for name in ("data", "notebooks"):
        assert (ROOT / "dts_mini" / name).resolve() == ROOT / name


@pytest.mark.slow
def test_a_wheel_holds_the_checkpoints_the_results_and_the_sources_of_the_notebooks(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    code = (
        "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1], {'--global-option': []})"
    )
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no checkout")
    for name in filter(None, listed.stdout.split("\0")):  # building leaves files beside the sources
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).symlink_to(ROOT / name)
    for link in ("data", "notebooks"):
        (tmp_path / "src/dts_mini" / link).unlink()
        (tmp_path / "src/dts_mini" / link).symlink_to(f"../{link}")
    environment = os.environ | {"PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path / "src", env=environment, check=True)
    held = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    wanted = {f"dts_mini/{path.relative_to(ROOT)}" for path in (ROOT / "data").rglob("*.json")}
    wanted |= {f"dts_mini/{path.relative_to(ROOT)}" for path in (ROOT / "data/mini").glob("*.safetensors")}
    wanted |= {f"dts_mini/{path.relative_to(ROOT)}" for path in (ROOT / "notebooks/source").glob("*.py")}
    wanted |= {name for name in listed.stdout.split("\0") if name.startswith("dts_mini/") and name.endswith(".py")}
    assert wanted <= held
    assert all(name.startswith("dts_mini") for name in held)
