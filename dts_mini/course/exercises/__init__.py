"""All exercises of the course by name: each ``nb*`` module here adds its EXERCISES, a module for a notebook."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from dts_mini.course.exercise import Exercise


def collect(exercises: Iterable[Exercise]) -> Mapping[str, Exercise]:
    """Exercises by name; ValueError when two share one, since check, hint and grade go by the name alone."""
    found: dict[str, Exercise] = {}
    for exercise in exercises:
        if exercise.name in found:
            both = f"{found[exercise.name].notebook} and {exercise.notebook}"
            raise ValueError(f"two exercises are called {exercise.name!r}, in {both}; rename one")
        found[exercise.name] = exercise
    return MappingProxyType(found)


_modules = sorted(module.name for module in iter_modules(__path__) if module.name.startswith("nb"))
EXERCISES = collect(e for name in _modules for e in import_module(f"{__name__}.{name}").EXERCISES)
