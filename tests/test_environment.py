"""pyproject.toml, constraints.txt, environment.yml and the Makefile describe one environment."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = "sentences"  # an extra that neither the Makefile nor environment.yml installs
GROUPS = {"run": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
REQUIRED = {name: [Requirement(line) for line in group] for name, group in GROUPS.items()}
DIRECT = [r for group in REQUIRED.values() for r in group if r.name != PROJECT["name"]]
CONSTRAINTS = [
    line.strip()
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
INSTALLABLE = ["pyproject.toml", "constraints.txt", "environment.yml", "Makefile", ".ci/run"]


def pins() -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in CONSTRAINTS)}


def conda_pip_lines() -> list[str]:
    (lines,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    return lines


def test_every_constraint_is_one_exact_public_version():
    for line in CONSTRAINTS:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), f"not an exact, plain pin: {line}"
    names = [canonicalize_name(line.split("==")[0]) for line in CONSTRAINTS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda r: r.name)
def test_every_direct_dependency_is_pinned_within_its_range(requirement):
    assert requirement.specifier, f"{requirement.name} has no range in pyproject.toml"
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def test_environment_yml_names_the_direct_dependencies_at_the_same_versions():
    lines, apart = conda_pip_lines(), [Requirement(line) for line in GROUPS[OWN]]
    assert lines[:2] == ["-c constraints.txt", "-e .[notebooks,dev,full]"]
    plain = [line.split("=") for line in CONDA["dependencies"] if isinstance(line, str) and "=" in line]
    conda = {
        name.removesuffix("-cpu").replace("pytorch", "torch"): version for name, version in plain if name != "python"
    }
    assert conda.keys() == {"torch", "torchvision"}, "the build without CUDA, and what is compiled against it"
    named = conda | {canonicalize_name(name): version for name, version in (line.split("==") for line in lines[2:])}
    assert named == {canonicalize_name(r.name): pins()[canonicalize_name(r.name)] for r in DIRECT if r not in apart}


def test_the_python_range_is_the_same_everywhere():
    supported = SpecifierSet(PROJECT["requires-python"])
    minors = [minor for minor in range(8, 20) if f"3.{minor}" in supported]
    assert minors == [11, 12, 13]
    (conda_python,) = [d for d in CONDA["dependencies"] if isinstance(d, str) and d.startswith("python=")]
    assert Version(conda_python.removeprefix("python=")) in supported
    classified = re.findall(r"Python :: 3\.(\d+)", " ".join(PROJECT["classifiers"]))
    assert [int(minor) for minor in classified] == minors
    makefile = (ROOT / "Makefile").read_text()
    assert f"(3, {minors[0]}) <= sys.version_info[:2] < (3, {minors[-1] + 1})" in makefile
    assert {int(minor) for minor in re.findall(r"\bpython3\.(\d+)\b", makefile)} == set(minors)
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in minors]


@pytest.mark.parametrize("name", INSTALLABLE)
def test_no_file_of_the_installation_names_a_host(name):
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"--(extra-)?index-url|--find-links|trusted-host", text)
    assert not re.search(r"\b[\w-]+\.(org|com|io|net)\b", text)


def test_make_help_is_the_default_and_lists_every_target():
    plain = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    listed = subprocess.run(["make"], cwd=ROOT, env=plain, capture_output=True, text=True, check=True).stdout
    for target in ["tutorial", "test", "lab", "zoo", "bench", "clean"]:
        assert re.search(rf"^  {target} +\S", listed, re.MULTILINE), f"make help does not list {target}"


def test_the_library_needs_torch_the_coder_and_little_else():
    named = {r.name for r in REQUIRED["run"]}
    assert named <= {"argcomplete", "constriction", "msgspec", "numpy", "safetensors", "torch", "xxhash"}


def test_an_extra_that_another_needs_is_there():
    for group in REQUIRED.values():
        for r in group:
            if r.name == PROJECT["name"]:
                assert r.extras <= GROUPS.keys()


def test_what_is_installed_takes_the_build_of_torch_that_is_asked_for():
    def planned(*settings: str) -> str:
        plain = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
        command = ["make", "-n", "-W", "pyproject.toml", "install", *settings]
        return subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, check=True).stdout

    wanted = "-c constraints.txt -e '.[notebooks,dev,full]'"
    assert f"pip install --python .venv/bin/python --torch-backend cpu {wanted}" in planned("TORCH=cpu")
    assert "--torch-backend" not in planned()
    assert f"-m pip install --disable-pip-version-check {wanted}" in planned("UV=")
