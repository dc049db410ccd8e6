"""Helpers for error messages."""

import pytest

from conf.options import first_line


@pytest.mark.parametrize(
    ("message", "expected"),
    [("one\ntwo", "one"), ("\n  one \ntwo", "one "), ("", "ValueError"), (" \n", "ValueError"), ("a" * 999, "a" * 300)],
)
def test_first_line_of_a_message(message, expected):
    assert first_line(ValueError(message)) == expected
