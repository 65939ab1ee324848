"""The language-model side: prompts as text, padding, and search equal to one made by hand."""

import pytest
import torch
from builders import tiny_decoder
from torch import nn

from earwitness.caption import Decoding
from earwitness.errors import CheckpointError
from earwitness.lamb.token_guide import GuideProcessor
from earwitness.models.llama import LlamaSize
from earwitness.system.decoder import Decoder, DecoderConfig, LoraConfig
from earwitness.training.language_model import build

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is:FutureWarning")


@pytest.fixture(scope="module")
def decoder():
    return tiny_decoder().eval()


def audio(rows=2, tokens=3, seed=0, scale=0.2):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, tokens, 32, generator=generator) * scale
    return z, torch.ones(rows, tokens, dtype=torch.bool)


def uneven(lengths=(5, 2, 3)):
    z, _ = audio(len(lengths), max(lengths), seed=3)
    return z, torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]


def byte_decoder(config: DecoderConfig) -> Decoder:
    """A decoder whose tokens are single bytes: ids decode to exactly the text they came from."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    size = LlamaSize(hidden=32, layers=1, heads=2, feed_forward=32)
    return Decoder(build(size, fast), fast, config)


@pytest.mark.parametrize(
    ("layout", "before", "after"),
    [
        ("plain", "<s>", "Say it."),
        ("llama2-chat", "<s>[INST] ", " Say it. [/INST]"),
        ("vicuna", "<s>USER: <Speech>", "</Speech> Say it.\nASSISTANT:"),
        ("slam", "<s>", "USER: Say it. \n ASSISTANT:"),
    ],
)
def test_what_the_model_reads_around_the_audio_is_exactly_the_layout(layout, before, after):
    decoder = byte_decoder(DecoderConfig(layout=layout, instruction="Say it.", tune="frozen"))
    z, mask = audio(1, 3)
    seen = []
    handle = decoder.model.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(inputs["inputs_embeds"][0]), with_kwargs=True
    )
    texts = decoder.tokenize(["a dog"])
    decoder(z, mask, texts)
    handle.remove()
    pieces = [int((decoder.table - row).abs().sum(1).argmin()) for row in seen[0].detach()]
    start = len(decoder.tokenizer(before, add_special_tokens=False).input_ids)
    decode = decoder.tokenizer.decode
    assert decode(pieces[:start]) == before
    torch.testing.assert_close(seen[0][start : start + 3], z[0])
    # The space before the caption is part of its first word.
    assert decode(pieces[start + 3 :]) == after + " a dog</s>"


def test_a_tokenizer_that_adds_the_space_itself_gets_no_second_one():
    decoder = tiny_decoder()
    own = decoder.tokenizer("a dog barks", add_special_tokens=False).input_ids
    assert decoder.tokenize(["a dog barks"]).ids.tolist() == [
        [*own, decoder.tokenizer.eos_token_id]
    ]


def test_a_tokenizer_without_an_end_token_is_refused():
    decoder = tiny_decoder()
    decoder.tokenizer.eos_token = None
    with pytest.raises(CheckpointError, match="no end-of-sentence token"):
        Decoder(decoder.model, decoder.tokenizer, DecoderConfig(tune="frozen"))


def test_tokenize_closes_each_caption_with_the_end_token(decoder):
    texts = decoder.tokenize(["a dog barks", "a man speaks while birds chirp"])
    end = decoder.tokenizer.eos_token_id
    for ids, mask, text in zip(
        *texts, ["a dog barks", "a man speaks while birds chirp"], strict=True
    ):
        real = ids[mask].tolist()
        assert real[-1] == end
        assert end not in real[:-1]
        assert decoder.tokenizer.decode(real[:-1]).strip() == text


@torch.inference_mode()
def test_logits_equal_a_forward_of_the_whole_sequence_one_clip_at_a_time(decoder):
    z, mask = uneven()
    captions = ["rain falls", "a man speaks while birds chirp", "a dog"]
    texts = decoder.tokenize(captions)
    together = decoder(z, mask, texts)
    embed = decoder.model.get_input_embeddings()
    before, after = decoder.prompt_ids()
    for row in range(3):
        real = texts.ids[row][texts.mask[row]]
        inputs = torch.cat(
            [
                embed(torch.tensor(before)),
                z[row][mask[row]],
                embed(torch.tensor(after)),
                embed(real),
            ]
        )
        logits = decoder.model(inputs_embeds=inputs[None]).logits[0]
        expected = logits[len(inputs) - len(real) - 1 : -1]
        found = together[row][texts.mask[row]]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_padding_of_audio_and_of_captions_changes_no_logit(decoder):
    z, mask = uneven()
    texts = decoder.tokenize(["rain falls", "a man speaks while birds chirp", "a dog"])
    clean = decoder(z, mask, texts)
    ids = texts.ids.masked_fill(~texts.mask, 7)
    dirty = decoder(z.masked_fill(~mask[..., None], 9.0), mask, texts._replace(ids=ids))
    torch.testing.assert_close(clean[texts.mask], dirty[texts.mask], atol=1e-5, rtol=1e-4)


def by_hand(decoder, z, mask, bias, steps):
    """Greedy captions from the training-time forward: grow the text by the best guided token."""
    ids = torch.zeros(1, 0, dtype=torch.long)
    end, total = decoder.tokenizer.eos_token_id, 0.0
    for _ in range(steps):
        probe = torch.cat([ids, torch.full((1, 1), end)], dim=1)
        texts = decoder.tokenize(["x"])._replace(
            ids=probe, mask=torch.ones_like(probe, dtype=torch.bool)
        )
        guided = (decoder(z, mask, texts)[:, -1] + bias).log_softmax(1)
        best = guided.argmax(1, keepdim=True)
        total += float(guided.max())
        ids = torch.cat([ids, best], dim=1)
        if int(best) == end:
            break
    return ids[0].tolist(), total / ids.shape[1]


@torch.inference_mode()
@pytest.mark.parametrize("strength", [0.0, 1.5])
def test_guided_greedy_search_equals_the_argmax_of_the_training_logits(decoder, strength):
    z, mask = uneven()
    vocabulary = decoder.table.shape[0]
    bias = strength * torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(1))
    settings = Decoding(beam_size=1, max_new_tokens=6)
    found = decoder.generate(z, mask, settings, [GuideProcessor(bias)])
    for row in range(3):
        ids, score = by_hand(decoder, z[row : row + 1], mask[row : row + 1], bias[row], 6)
        text = decoder.tokenizer.decode(ids, skip_special_tokens=True)
        assert found[row][0].text == " ".join(text.split())
        assert found[row][0].log_probability == pytest.approx(score, abs=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("guided", [False, True])
def test_beam_scores_are_the_sums_of_guided_log_probabilities(decoder, guided):
    z, mask = uneven()
    vocabulary, end = decoder.table.shape[0], decoder.tokenizer.eos_token_id
    bias = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(2)) * guided
    bias[:, end] = 3.0
    outputs = []
    generate = decoder.model.generate
    decoder.model.generate = lambda **kwargs: outputs.append(generate(**kwargs)) or outputs[0]
    settings = Decoding(beam_size=3, n_best=3, max_new_tokens=5, length_penalty=0.0)
    rows = decoder.generate(z, mask, settings, [GuideProcessor(bias)])
    decoder.model.generate = generate
    for i, sequence in enumerate(outputs[0].sequences):
        row, ids = i // 3, sequence.tolist()
        ids = ids[: ids.index(end) + 1] if end in ids else ids
        texts = decoder.tokenize(["x"])._replace(
            ids=torch.tensor([ids]), mask=torch.ones(1, len(ids), dtype=torch.bool)
        )
        logits = decoder(z[row : row + 1], mask[row : row + 1], texts)[0] + bias[row]
        steps = logits.log_softmax(1)[torch.arange(len(ids)), torch.tensor(ids)]
        assert float(outputs[0].sequences_scores[i]) == pytest.approx(float(steps.sum()), abs=1e-3)
        assert rows[row][i % 3].log_probability == pytest.approx(float(steps.mean()), abs=1e-3)


@torch.inference_mode()
def test_a_beam_as_wide_as_the_vocabulary_finds_the_best_of_all_sequences(decoder):
    """Exhaustive search over two tokens; a forbidden end keeps all captions equally long."""
    z, mask = audio(1)
    vocabulary, end = decoder.table.shape[0], decoder.tokenizer.eos_token_id
    bias = torch.zeros(1, vocabulary)
    bias[0, end] = -1e4
    first = _next(decoder, z, mask, torch.zeros(1, 0, dtype=torch.long)) + bias
    first = first.log_softmax(1)[0]
    pairs = _next(decoder, z, mask, torch.arange(vocabulary)[:, None]) + bias
    joint = first[:, None] + pairs.log_softmax(1)
    best = joint.flatten().topk(3)
    settings = Decoding(beam_size=vocabulary, n_best=3, max_new_tokens=2)
    found = decoder.generate(z, mask, settings, [GuideProcessor(bias)])[0]
    for score, index, caption in zip(best.values, best.indices, found, strict=True):
        ids = [int(index) // vocabulary, int(index) % vocabulary]
        assert caption.log_probability == pytest.approx(float(score) / 2, abs=1e-4)
        assert caption.text == " ".join(decoder.tokenizer.decode(ids, True).split())


def _next(decoder, z, mask, ids):
    probe = torch.cat([ids, torch.full((len(ids), 1), 1)], dim=1)
    texts = decoder.tokenize(["x"])._replace(ids=probe, mask=torch.ones_like(probe).bool())
    size = len(ids)
    return decoder(z.expand(size, -1, -1), mask.expand(size, -1), texts)[:, -1]


@torch.inference_mode()
@pytest.mark.parametrize("beam_size", [1, 4])
def test_clips_with_different_masks_get_the_same_captions_alone(decoder, beam_size):
    z, mask = uneven()
    settings = Decoding(beam_size=beam_size, max_new_tokens=6)
    together = decoder.generate(z, mask, settings)
    for row, n in enumerate((5, 2, 3)):
        alone = decoder.generate(z[row : row + 1, :n], mask[row : row + 1, :n], settings)[0][0]
        assert alone.text == together[row][0].text
        assert alone.log_probability == pytest.approx(together[row][0].log_probability, abs=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("sample", [False, True])
def test_n_best_are_sorted(decoder, sample):
    z, mask = audio()
    settings = Decoding(n_best=4, max_new_tokens=6, sample=sample)
    for row in decoder.generate(z, mask, settings):
        scores = [caption.log_probability for caption in row]
        assert len(scores) == 4
        assert scores == sorted(scores, reverse=True)
        assert len({caption.text for caption in row}) > 1


@torch.inference_mode()
def test_sampling_is_fixed_by_its_seed_and_leaves_the_global_generator_alone(decoder):
    z, mask = audio()
    state = torch.random.get_rng_state()
    runs = [
        decoder.generate(z, mask, Decoding(sample=True, max_new_tokens=8, seed=seed))
        for seed in (3, 3, 4)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert torch.equal(torch.random.get_rng_state(), state)


@torch.inference_mode()
def test_search_settings_of_a_model_folder_do_not_leak_in(decoder):
    z, mask = audio()
    settings = Decoding(max_new_tokens=6)
    expected = decoder.generate(z, mask, settings)
    other = tiny_decoder().eval()
    for name, value in {
        "do_sample": True,
        "temperature": 0.3,
        "top_p": 0.5,
        "top_k": 3,
        "repetition_penalty": 2.0,
        "length_penalty": 9.0,
        "no_repeat_ngram_size": 1,
        "num_beams": 7,
        "max_length": 3,
        "min_length": 2,
    }.items():
        setattr(other.model.generation_config, name, value)
    for found, wanted in zip(other.generate(z, mask, settings), expected, strict=True):
        assert found[0].text == wanted[0].text
        assert found[0].log_probability == pytest.approx(wanted[0].log_probability, abs=1e-4)


@torch.inference_mode()
def test_content_words_are_not_said_twice_where_that_is_asked_for(decoder):
    z, mask = audio(1)
    vocabulary = decoder.table.shape[0]
    bias = torch.zeros(1, vocabulary)
    man = decoder.tokenizer(" man", add_special_tokens=False).input_ids
    assert len(man) == 1
    bias[0, man[0]] = 200.0
    bias[0, decoder.tokenizer.eos_token_id] = 100.0
    for repeat, count in ((True, 6), (False, 1)):
        settings = Decoding(beam_size=1, max_new_tokens=6, repeat_content_words=repeat)
        text = decoder.generate(z, mask, settings, [GuideProcessor(bias)])[0][0].text
        assert text == " ".join(["man"] * count)


def test_content_ids_are_whole_content_words(decoder):
    flags = decoder.content_ids()
    words = {" man": True, " dog": True, " and": False, " the": False}
    for word, content in words.items():
        ids = decoder.tokenizer(word, add_special_tokens=False).input_ids
        if len(ids) == 1:
            assert bool(flags[ids[0]]) is content
    assert not (flags & decoder.special).any()


@pytest.mark.parametrize(
    ("tune", "trained"), [("full", "model."), ("frozen", None), ("lora", "lora_")]
)
def test_tune_says_which_weights_are_trained(tune, trained):
    decoder = tiny_decoder(DecoderConfig(tune=tune, lora=LoraConfig(r=2, targets=("q_proj",))))
    named = [name for name, p in decoder.named_parameters() if p.requires_grad]
    if trained is None:
        assert not named
    else:
        assert named
        assert all(trained in name for name in named)
    assert (tune != "lora") or all("q_proj" in name for name in named)


def test_table_is_the_embedding_matrix_and_gets_no_gradient(decoder):
    assert not decoder.table.requires_grad
    assert torch.equal(decoder.table, decoder.model.get_input_embeddings().weight)
    assert isinstance(decoder.model.get_input_embeddings(), nn.Embedding)


def test_hidden_dropout_is_silent_in_use_and_unbiased_in_training():
    decoder = byte_decoder(DecoderConfig(tune="full"))
    dropping = Decoder(
        decoder.model, decoder.tokenizer, DecoderConfig(tune="full", hidden_dropout=0.5)
    )
    layer = dropping.model.model.layers[0].mlp
    x = torch.randn(4, 7, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        kept = layer.eval()(x)
        torch.manual_seed(0)
        drawn = torch.stack([layer.train()(x) for _ in range(400)])
    assert torch.equal(kept, layer.eval()(x))
    assert float((drawn == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    torch.testing.assert_close(drawn[drawn != 0].abs().min(), 2 * kept.abs().min())
    torch.testing.assert_close(drawn.mean(0), kept, atol=0.2 * float(kept.abs().max()), rtol=0)
