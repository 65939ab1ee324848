"""A sound before and after the bridge: captions and distances against the parts themselves."""

import numpy as np
import pytest
import torch
from builders import noise, tiny_captioner
from embeddings import units
from heard import RATE
from link_parts import untrained_link
from torch.nn.functional import cosine_similarity, normalize

from earwitness.captioning.pipeline import SoundResult
from earwitness.captioning.segments import Segment
from earwitness.serve import card
from earwitness.serve.bridging import Bridging, median_place, places, sentences


@pytest.fixture(scope="module")
def captioner():
    made = untrained_link()
    with torch.no_grad():
        for name, weight in made.decoder.model.named_parameters():
            weight.mul_(10 if "proj" in name else 1)
    return made


def test_with_the_bridge_is_the_model_as_it_is(captioner) -> None:
    view = Bridging.of(captioner).view(noise(2.0), 1.0, 3.0)
    expected = captioner.caption((noise(2.0), RATE))
    assert (view.start, view.end) == (1.0, 3.0)
    assert view.captions[1] == expected.text
    assert view.scores[1] == pytest.approx(expected.score, rel=1e-4)


def test_without_the_bridge_the_projector_reads_the_embedding_itself(captioner) -> None:
    view = Bridging.of(captioner).view(noise(2.0), 0.0, 2.0)
    bare = untrained_link("none")
    bare.prefix.projector.load_state_dict(captioner.prefix.projector.state_dict())
    bare.decoder.load_state_dict(captioner.decoder.state_dict())
    expected = bare.caption((noise(2.0), RATE))
    assert view.captions[0] == expected.text
    assert view.scores[0] == pytest.approx(expected.score, rel=1e-4)
    assert view.captions[0] != view.captions[1]


def test_distances_are_those_of_the_embeddings(captioner) -> None:
    view = Bridging.of(captioner).view(noise(2.0), 0.0, 2.0)
    encoder = captioner.encoder.encoder
    cloud = encoder.embed_text(list(sentences()))
    e = encoder.embed_audio([torch.from_numpy(noise(2.0))])
    for place, vector in zip(view.places, (e, captioner.prefix.bridge(e)), strict=True):
        cosines = cosine_similarity(vector, cloud)
        assert place.nearest == pytest.approx(1 - float(cosines.max()), abs=1e-5)
        center = cosine_similarity(vector, cloud.mean(0, keepdim=True))
        assert place.center == pytest.approx(1 - float(center), abs=1e-5)
    assert view.sentences == len(sentences())


def test_median_sentence_against_a_loop() -> None:
    cloud = rows = units(9).numpy()
    nearest = [
        1 - max(float(x @ y) for j, y in enumerate(rows) if j != i) for i, x in enumerate(rows)
    ]
    middle = rows.mean(0) / np.linalg.norm(rows.mean(0))
    found = median_place(cloud)
    assert found.nearest == pytest.approx(np.median(nearest), abs=1e-6)
    assert found.center == pytest.approx(np.median([1 - x @ middle for x in rows]), abs=1e-6)


def test_vector_of_the_cloud_has_no_distance_to_it() -> None:
    cloud = units(9).numpy()
    assert places(cloud[:1], cloud)[0].nearest == pytest.approx(0.0, abs=1e-6)
    center = normalize(torch.from_numpy(cloud).mean(0, keepdim=True), dim=1).numpy()
    assert places(center, cloud)[0].center == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("made", [tiny_captioner, lambda: untrained_link("none")])
def test_models_without_a_bridge_have_no_view(made) -> None:
    assert Bridging.of(made()) is None


def test_sentences_are_different_and_plain() -> None:
    texts = sentences()
    assert len(set(texts)) == len(texts) > 50
    assert all(text == text.strip().lower() != "" for text in texts)


def test_card_tells_both_captions(captioner) -> None:
    view = Bridging.of(captioner).view(noise(2.0), 0.0, 2.0)
    view = type(view)(**{**vars(view), "captions": ("one <b>", "two & three")})
    heard = SoundResult("x.wav", 2.0, (Segment(0.0, 2.0, "x", 0.5),))
    html = card.result(heard, noise(2.0), RATE, card.Insight(bridge=view), "m")
    assert "<td>one &lt;b&gt;</td>" in html
    assert "<td>two &amp; three</td>" in html
    assert "ew-bridge" not in card.result(heard, noise(2.0), RATE, card.Insight(), "m")
