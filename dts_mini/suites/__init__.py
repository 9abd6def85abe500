"""Floor 4: tasks, images or texts, checkpoints and heads behind one face, and what a model answers."""

import os

from dts_mini.core.errors import DTSError

CLIP = ("clip-vit-b-32", "clip-vit-b-16", "clip-vit-l-14")
GLUE = ("gpt2-glue", "roberta-glue")
REAL = (*CLIP, *GLUE)  # of the Hub: what ``dts-mini reproduce`` measures
SUITES = ("mini", *REAL)


def load_suite(name: str | None = None, **options):
    """The suite called ``name``, by default what the environment variable DTS_SUITE says, else ``mini``.

    ``clip-vit-b-32:14`` is the suite of 14 tasks (8 without a number, or 20). ``options`` are those of ``ClipSuite``
    or ``GlueSuite``; the variables DTS_HOME, DTS_DEVICE and DTS_PRECISION stand for three of them, so that a notebook
    need not change.
    Raises DTSError for an unknown suite, and for one whose libraries are not installed (ExtraError).
    """
    name = name or os.environ.get("DTS_SUITE") or "mini"
    base, _, count = name.partition(":")
    if base not in SUITES or (count and (base not in CLIP or not count.isdigit())):
        raise DTSError(f"suite {name!r} is unknown: choose one of {', '.join(SUITES)}, or clip-vit-b-32:14 and such")
    if base == "mini":  # open_clip takes seconds to import
        from dts_mini.suites.mini.suite import MiniSuite

        return MiniSuite(**options)
    given = {"home": "DTS_HOME", "device": "DTS_DEVICE", "precision": "DTS_PRECISION"}
    set_here = {option: os.environ[variable] for option, variable in given.items() if os.environ.get(variable)}
    if base in GLUE:
        from dts_mini.suites.glue.suite import GlueSuite

        return GlueSuite(base, **set_here | options)
    from dts_mini.suites.clip.suite import ClipSuite

    return ClipSuite(base, **({"tasks": int(count)} if count else {}) | set_here | options)
