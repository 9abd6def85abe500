"""Floor 6: what the notebooks use: claims and exercises that a machine checks, figures with alt text."""

from dts_mini.course.answers import check, hint, whose
from dts_mini.course.claims import claim

__all__ = ["bring", "check", "claim", "hint", "show", "whose"]


def __getattr__(name: str):
    if name == "show":  # matplotlib and IPython take a second to import, and grading needs neither
        from dts_mini.course.style import show

        return show
    if name == "bring":  # what learners wrote is read as IPython reads it, and grading has a bring of its own
        from dts_mini.course.brought import bring

        return bring
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
