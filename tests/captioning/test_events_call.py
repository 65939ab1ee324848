"""`Captioner.events` of both pocket models, and of captioners that have no class head."""

from pathlib import Path

import numpy as np
import pytest
from builders import tiny_captioner
from sounds import tone

from earwitness import Captioner, CheckpointError, ConfigError
from earwitness.system.captioner import TorchCaptioner

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SIREN = str(EXAMPLES / "siren.flac")


@pytest.fixture(scope="module")
def lamb() -> Captioner:
    return Captioner.load("pocket-lamb")


def test_events_have_audioset_names_and_lie_in_the_sound(lamb) -> None:
    found = lamb.events(SIREN)
    assert "Siren" in {event.name for event in found}
    assert all(0 <= event.start_s < event.end_s <= 10.01 for event in found)
    assert [event.start_s for event in found] == sorted(event.start_s for event in found)


def test_a_lower_threshold_finds_no_fewer_names(lamb) -> None:
    few, many = ({e.name for e in lamb.events(SIREN, t)} for t in (0.7, 0.2))
    assert few <= many


def test_pocket_link_and_torch_find_what_pocket_lamb_finds(lamb) -> None:
    expected = lamb.events(SIREN)
    for other in (Captioner.load("pocket-link"), TorchCaptioner.load("pocket-lamb")):
        found = other.events(SIREN)
        assert [event[:4] for event in found] == [event[:4] for event in expected]
        probabilities = [event.probability for event in found]
        np.testing.assert_allclose(probabilities, [e.probability for e in expected], atol=1e-3)


def test_events_refuse_what_they_cannot_do(lamb) -> None:
    with pytest.raises(ConfigError, match="threshold from 0 to 1, got 2"):
        lamb.events(SIREN, 2.0)
    with pytest.raises(CheckpointError, match="no class head"):
        tiny_captioner().events((tone(16000, 1.0), 16000))


def test_captions_of_torch_and_of_the_graphs_are_chosen_alike(lamb) -> None:
    from earwitness.captioning.captioner import with_own_rerank

    torch = with_own_rerank(TorchCaptioner.load("pocket-lamb"))
    expected, found = lamb.caption(SIREN), torch.caption(SIREN)
    assert found.text == expected.text
    assert found.score == pytest.approx(expected.score, abs=1e-3)
