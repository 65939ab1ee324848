"""The options of a caption: one model, which command line, form and page all follow."""

import inspect

import pytest
import typer

from earwitness.captioning.options import CaptionOptions, Conflict
from earwitness.captioning.segments import Windows
from earwitness.cli import app
from earwitness.errors import ConfigError


def command_line() -> dict[str, typer.core.TyperOption]:
    command = typer.main.get_command(app).commands["caption"]  # type: ignore[attr-defined]
    return {p.name: p for p in command.params}


def test_command_line_has_every_option_with_its_description() -> None:
    options = command_line()
    for name, field in CaptionOptions.model_fields.items():
        assert options[name].help == field.description, name
        assert options[name].opts[0] == f"--{name.replace('_', '-')}"


def test_command_line_refuses_what_the_model_refuses() -> None:
    options = command_line()
    for name, value in (("beam", 0), ("n_best", 0), ("seed", -1), ("guide_strength", -1.0)):
        with pytest.raises(ValueError, match=name):
            CaptionOptions.model_validate({name: value})
        assert options[name].min > value


def test_form_has_every_option_and_five_fields_of_its_own() -> None:
    form = pytest.importorskip("earwitness.serve.options", reason="needs fastapi").CaptionForm
    own = {"file", "merge", "model", "response_format", "stream"}
    assert set(form.model_fields) == set(CaptionOptions.model_fields) | own
    for name, field in CaptionOptions.model_fields.items():
        assert form.model_fields[name].annotation == field.annotation
        assert form.model_fields[name].description == field.description


def test_page_offers_options_of_the_model_alone() -> None:
    pytest.importorskip("gradio", reason="the page needs gradio")
    from earwitness.serve import demo

    source = inspect.getsource(demo._options)
    offered = {name for name in CaptionOptions.model_fields if f'"{name}": ' in source}
    assert offered == {"n_best", "beam", "guide_strength", "window", "rerank"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"sample": True, "temperature": 0.7, "top_p": 0.9, "seed": 1}, None),
        ({"temperature": 0.7}, Conflict("temperature", "sample", False)),
        ({"seed": 0}, Conflict("seed", "sample", False)),
        ({"sample": True, "beam": 2}, Conflict("beam", "sample", True)),
        ({"rerank_weight": 0.5}, Conflict("rerank_weight", "rerank", False)),
        ({"rerank": "consensus", "rerank_weight": 0.5}, None),
    ],
)
def test_options_that_do_not_fit_together_are_named(options: dict, expected: object) -> None:
    assert CaptionOptions(**options).conflict() == expected


@pytest.mark.parametrize(
    ("options", "timed", "expected"),
    [
        ({}, False, (10.0, 10.0, 30.0)),
        ({}, True, (10.0, 10.0, 15.0)),
        ({"window": 40.0}, False, (40.0, 40.0, 40.0)),
        ({"window": 4.0, "hop": 2.0}, True, (4.0, 2.0, 6.0)),
        ({"whole": 20.0}, False, (10.0, 10.0, 20.0)),
    ],
)
def test_lengths_have_their_defaults(options: dict, timed: bool, expected: tuple) -> None:
    assert CaptionOptions(**options).lengths(timed) == expected


def test_default_of_whole_stays_below_the_limit_of_a_service() -> None:
    assert CaptionOptions(window=50.0).lengths(True, longest=60.0)[2] == 60.0
    assert CaptionOptions(whole=70.0).lengths(True, longest=60.0)[2] == 70.0


def test_hop_longer_than_the_window_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a hop from 0.01 s to .* 4 s, got 5 s"):
        Windows(*CaptionOptions(window=4.0, hop=5.0).lengths(True))


def test_only_what_was_given_changes_the_search() -> None:
    assert CaptionOptions().search_changes() == {}
    given = CaptionOptions(beam=2, n_best=3, guide_strength=0.0)
    assert given.search_changes() == {"beam_size": 2, "n_best": 3, "guide_strength": 0.0}
