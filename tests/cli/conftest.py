"""Commands draw no figures here: those have tests of their own in ``tests/report``."""

import pytest


@pytest.fixture(autouse=True)
def no_drawing(sketched):
    """For every test of this folder."""
