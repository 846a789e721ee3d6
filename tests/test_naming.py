"""Names of methods are taken apart in one place, and put together again."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from entrob.naming import Label
from entrob.sweep.experiment import Method


@pytest.mark.parametrize(
    ("name", "label", "shown"),
    [
        ("none", Label("none"), "none"),
        ("state_entropy[paper]", Label("state_entropy", "paper"), "state entropy (paper)"),
        ("kl@0.1", Label("kl", value="0.1"), "kl@0.1"),
        ("kl[reference]@0.1", Label("kl", "reference", "0.1"), "kl (reference)@0.1"),
        ("none_tuned@T=1.5", Label("none_tuned", value="T=1.5"), "none tuned@T=1.5"),
        ("[odd", Label("[odd"), "[odd"),
    ],
)
def test_a_name_has_three_parts(name, label, shown):
    assert Label.parse(name) == label and str(label) == name and label.shown == shown


@given(st.text("ab[]@=.", max_size=8))
@example("a[]@")  # nothing is no part
def test_no_name_loses_anything(name):
    assert str(Label.parse(name)) == name


def test_a_method_is_known_by_its_identity():
    method = Method("state_entropy", {"state_entropy": 0.3}, variant="paper", temperature=2.0)
    assert method.identity["name"] == method.name == "state_entropy[paper]"
    assert not {"base", "variant", "value"} & set(method.identity)
    assert Method.identified(method.identity) == method
