"""The same numbers as other projects: transformers' Llama in both directions, and llama2.c's own output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from ayni.conversion import export_model, import_model
from ayni.model.heads import column_values
from ayni.model.layout import Layout
from ayni.model.score_head import with_score_head
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.model_directory import load_model, save_model
from ayni.text.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

TEXTS = ["Ada baked 12 loaves.", " Hello", "中国", "two\nlines </s>", "the village by the river rose"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the village by the river and the baker of the village"] * 3, 282)


def shape_of_kind(tokenizer: Tokenizer, kv_heads: int, tied: bool) -> Shape:
    sizes = {"dim": 48, "layers": 3, "heads": 4, "kv_heads": kv_heads, "hidden": 80}
    return Shape(**sizes, vocab=tokenizer.vocab_size, context=128, tied=tied, norm_eps=1e-6, theta=5000.0)


def build(shape: Shape, seed: int = 0) -> Transformer:
    """Random weights large enough that logits spread over several nats and attention is not flat."""
    model = initialise(Transformer(shape), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        p.data.mul_(1 + 0.3 * torch.rand(p.shape, generator=generator) if name.endswith("norm.weight") else 5)
    return model


def ours(model: Transformer, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(tokens, Layout.of([len(tokens)])) @ model.head.t()


def random_tokens(vocab: int, length: int = 100, seed: int = 0) -> Tensor:
    return torch.randint(3, vocab, (length,), generator=torch.Generator().manual_seed(seed))


kinds = pytest.mark.parametrize(
    ("kv_heads", "tied"), [(4, False), (2, False), (1, True), (4, True)], ids=["mha", "gqa", "mqa-tied", "mha-tied"]
)


@kinds
def test_an_exported_model_has_equal_logits_in_transformers(
    tmp_path: Path, tokenizer: Tokenizer, kv_heads: int, tied: bool
) -> None:
    model = build(shape_of_kind(tokenizer, kv_heads, tied))
    save_model(tmp_path / "model", model, tokenizer)
    theirs, loading = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(loading.values()), loading  # nothing missing, unexpected or mismatched
    assert theirs.dtype == torch.float32
    assert sum(p.numel() for p in theirs.parameters()) == model.shape.parameters
    tokens = random_tokens(tokenizer.vocab_size)
    with torch.no_grad():
        expected = theirs(tokens[None]).logits[0]
    assert expected.std() > 0.5
    torch.testing.assert_close(ours(model, tokens), expected, rtol=0, atol=1e-5)


@kinds
def test_a_model_of_transformers_has_equal_logits_here(
    tmp_path: Path, tokenizer: Tokenizer, kv_heads: int, tied: bool
) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    model, _ = load_model(tmp_path / "theirs")
    assert model.shape == shape_of_kind(tokenizer, kv_heads, tied)
    tokens = random_tokens(tokenizer.vocab_size)
    with torch.no_grad():
        expected = theirs(tokens[None]).logits[0]
    assert expected.std() > 0.5
    torch.testing.assert_close(ours(model, tokens), expected, rtol=0, atol=1e-5)

    # and back: bit for bit the weights that transformers wrote
    save_model(tmp_path / "ours", model, tokenizer)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in theirs.state_dict().items())


def test_other_weight_files_of_transformers_are_read(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = build(shape_of_kind(tokenizer, 2, False))
    save_model(tmp_path / "model", model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    sharded, pickled = tmp_path / "sharded", tmp_path / "pickled"
    theirs.save_pretrained(sharded, max_shard_size="60KB")
    tokenizer.save(sharded)
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    export_model(tmp_path / "model", pickled, "hf")
    (pickled / "model.safetensors").unlink()
    extra = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(6) for i in range(3)}  # transformers < 4.31
    torch.save(theirs.state_dict() | extra, pickled / "pytorch_model.bin")
    for directory in (sharded, pickled):
        state = load_model(directory)[0].state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_the_tokenizer_of_an_exported_directory_gives_equal_ids(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(tmp_path / "model", build(shape_of_kind(tokenizer, 2, False)), tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "model")
    for text in TEXTS:
        plain = theirs(text, split_special_tokens=True).input_ids
        assert plain == [tokenizer.bos, *tokenizer.encode(text)], text
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos, tokenizer.eos)
    assert theirs.pad_token_id == config.pad_token_id != tokenizer.eos


def test_greedy_generation_agrees(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = build(shape_of_kind(tokenizer, 2, False))
    save_model(tmp_path / "model", model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    config = theirs.generation_config
    assert (config.eos_token_id, config.do_sample, config.top_p) == (tokenizer.eos, True, 0.9)
    start = random_tokens(tokenizer.vocab_size, 5)
    settings = transformers.GenerationConfig(max_new_tokens=20, do_sample=False, eos_token_id=-1, pad_token_id=0)
    mask = torch.ones(1, 5, dtype=torch.long)
    out = theirs.generate(start[None], attention_mask=mask, generation_config=settings)[0]
    tokens = start
    for _ in range(20):
        tokens = torch.cat([tokens, ours(model, tokens)[-1].argmax()[None]])
    assert out.tolist() == tokens.tolist()


@kinds
def test_a_reward_model_scores_equally_as_a_sequence_classifier(
    tmp_path: Path, tokenizer: Tokenizer, kv_heads: int, tied: bool
) -> None:
    model = with_score_head(build(shape_of_kind(tokenizer, kv_heads, tied)), seed=1)
    save_model(tmp_path / "reward", model, tokenizer)
    theirs, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "reward", output_loading_info=True
    )
    assert not any(loading.values()), loading
    assert theirs.config.num_labels == 1
    assert theirs.config.pad_token_id != theirs.config.eos_token_id

    eos, pad = tokenizer.eos, theirs.config.pad_token_id
    rows = [random_tokens(tokenizer.vocab_size, n, seed=n).tolist() for n in (12, 3, 7, 30)]
    rows[0][-1] = rows[2][-1] = eos  # two finished answers, two truncated ones
    lengths = [len(row) for row in rows]
    layout = Layout.of(lengths)
    with torch.no_grad():
        flat = torch.tensor([token for row in rows for token in row])
        scores = column_values(model, model(flat, layout, layout.ends))
        padded = torch.tensor([row + [pad] * (30 - len(row)) for row in rows])
        mask = torch.arange(30) < torch.tensor(lengths)[:, None]
        together = theirs(padded, attention_mask=mask.long()).logits[:, 0]
        alone = torch.stack([theirs(torch.tensor([row])).logits[0, 0] for row in rows])
    assert scores.std() > 0.1
    torch.testing.assert_close(scores, together, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores, alone, rtol=0, atol=1e-5)

    again, _ = load_model(tmp_path / "reward", expect="score")
    assert torch.equal(again.head, model.head)


def test_bf16_directories_load_in_bf16(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = build(shape_of_kind(tokenizer, 2, False))
    save_model(tmp_path / "model", model, tokenizer, dtype=torch.bfloat16)
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").dtype == torch.bfloat16
    assert load_model(tmp_path / "model")[0].head.dtype == torch.float32
    stored = load_model(tmp_path / "model", dtype=None)[0]
    assert stored.head.dtype == torch.bfloat16
    assert torch.equal(stored.head, model.head.bfloat16())


def test_stories260k_continues_as_llama2c_itself_does(tmp_path: Path, data_dir: Path) -> None:
    source = data_dir / "models" / "stories260k"
    import_model(source / "stories260K.bin", tmp_path / "model")
    model, tokenizer = load_model(tmp_path / "model")
    assert model.shape == Shape(64, 5, 8, 4, 172, 512, context=512, tied=True)
    tokens = torch.tensor([tokenizer.bos])
    for _ in range(200):
        tokens = torch.cat([tokens, ours(model, tokens)[-1].argmax()[None]])
    printed = tokenizer.decode(tokens[1:].tolist()).encode()
    assert printed == (source / "greedy_200_steps.txt").read_bytes()


def test_stories260k_goes_out_as_it_came_in(tmp_path: Path, data_dir: Path) -> None:
    source = data_dir / "models" / "stories260k"
    import_model(source / "stories260K.bin", tmp_path / "model", source / "tok512.bin")
    export_model(tmp_path / "model", tmp_path / "out", "llama2c")
    before, after = (file.read_bytes() for file in (source / "stories260K.bin", tmp_path / "out" / "model.bin"))
    tables = 28 + 4 * 260_032
    assert after[:tables] == before[:tables]
    # llama2.c skips the rotary tables, whose last bit hangs on the cosine of the machine that wrote them
    was, now = (torch.frombuffer(bytearray(data[tables:]), dtype=torch.float32) for data in (before, after))
    torch.testing.assert_close(now, was, rtol=0, atol=1e-6)
    assert (tmp_path / "out" / "tok.bin").read_bytes() == (source / "tok512.bin").read_bytes()


def test_stories260k_has_equal_logits_in_transformers(tmp_path: Path, data_dir: Path) -> None:
    import_model(data_dir / "models" / "stories260k" / "stories260K.bin", tmp_path / "model")
    model, _ = load_model(tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokens = random_tokens(512, 200)
    with torch.no_grad():
        expected = theirs(tokens[None]).logits[0]
    torch.testing.assert_close(ours(model, tokens), expected, rtol=1e-5, atol=1e-4)  # logits up to 20


def test_llama2_tokenizer_rides_along(tmp_path: Path, data_dir: Path) -> None:
    llama = load_tokenizer(data_dir / "tokenizers" / "llama2" / "tokenizer.model")
    model = build(replace(shape_of_kind(llama, 2, True), dim=8, heads=2, hidden=8, layers=1))
    save_model(tmp_path / "model", model, llama)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    for text in TEXTS:
        assert theirs(text, split_special_tokens=True).input_ids == [1, *llama.encode(text)]
    assert load_model(tmp_path / "model")[1].fingerprint == llama.fingerprint
