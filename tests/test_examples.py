"""The examples in docstrings are run, and whatever a user imports has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import dts_mini
from dts_mini import core, ours

MODULES = [
    importlib.import_module(f"{package.__name__}.{info.name}")
    for package in (core, ours)
    for info in pkgutil.iter_modules(package.__path__)
]
NAMES = {"torch": torch} | {name: getattr(dts_mini, name) for name in dts_mini.__all__}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_examples_of_a_module_say_what_happens(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # they may write files
    found = doctest.testmod(
        module,
        optionflags=doctest.ELLIPSIS,
        extraglobs=NAMES | {n: v for n, v in vars(module).items() if n not in NAMES},
    )
    assert not found.failed


@pytest.mark.parametrize("name", [n for n in dts_mini.__all__ if inspect.isfunction(getattr(dts_mini, n))])
def test_a_public_function_has_an_example(name):
    assert ">>> " in (getattr(dts_mini, name).__doc__ or ""), f"{name} has no example"
