"""What several measurements start from, made once: descriptors of the small suite, and every way to hold out its tasks."""

import pytest
from small import SmallSuite

from dts_mini.measures.descriptors import DESCRIPTORS
from dts_mini.measures.unseen import measure


@pytest.fixture(scope="session")
def rows() -> dict:
    return {name: make(SmallSuite()) for name, make in DESCRIPTORS.items()}


@pytest.fixture(scope="session")
def entries(rows) -> list:
    return measure(SmallSuite(), rows, validation=20, test=20)
