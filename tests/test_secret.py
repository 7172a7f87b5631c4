"""A secret shows itself to nobody who did not ask."""

import json
import pickle
import traceback

import pytest

from agent.secret import HIDDEN, Secret

KEY = b"correct horse battery staple"
SECRET = Secret(KEY)


@pytest.mark.parametrize("shown", [str(SECRET), repr(SECRET), f"{SECRET}", f"{[SECRET]}", f"{SECRET!a}"])
def test_no_text_of_it_tells_anything(shown: str) -> None:
    assert shown.strip("[]") == HIDDEN


def test_who_asks_is_told() -> None:
    assert SECRET.reveal() == KEY


def test_it_goes_into_no_json_and_no_pickle() -> None:
    with pytest.raises(TypeError):
        json.dumps({"key": SECRET})
    with pytest.raises(TypeError, match="not to be pickled"):
        pickle.dumps(SECRET)


def test_it_is_equal_to_its_equal_alone() -> None:
    assert Secret(KEY) == SECRET
    assert Secret(KEY + b"!") != SECRET
    assert SECRET != KEY
    with pytest.raises(TypeError):
        hash(SECRET)


def test_a_traceback_does_not_tell_it() -> None:
    with pytest.raises(ValueError, match=r"Secret\(\.\.\.\)") as raised:
        raise ValueError(SECRET)
    assert "horse" not in "".join(traceback.format_exception(raised.value))
