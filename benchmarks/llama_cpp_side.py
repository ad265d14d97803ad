"""llama.cpp as a peer of sampling: the same weights in its file format, its batches and samplers, by its C interface.

It is built from source, with a C++ compiler and CMake, in ten minutes: `make .venv-bench/llama-cpp`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import llama_cpp as c
import numpy as np
import torch
from torch import Tensor

from ayni.model.transformer import Transformer

# Its names of our matrices, which its adjacent pairs of rotary positions take as they are.
BLOCK = {
    "attention_norm": "attn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "ffn_norm": "ffn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
}
SILENT = c.llama_log_callback(lambda *_: None)  # as long as it is called: it says hundreds of lines
WHOLE = {"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output"}


def its_name(name: str) -> str:
    """layers.3.attention.wq.weight → blk.3.attn_q.weight"""
    stem = name.removesuffix(".weight")
    if not stem.startswith("layers."):
        return f"{WHOLE[stem]}.weight"
    _, layer, part = stem.split(".", 2)
    return f"blk.{layer}.{BLOCK[part]}.weight"


def write(path: Path, model: Transformer, dtype: torch.dtype) -> None:
    """The model in its format; without a vocabulary, for it is given tokens."""
    shape = model.shape
    file = gguf.GGUFWriter(path, "llama")
    file.add_context_length(shape.context)
    file.add_embedding_length(shape.dim)
    file.add_block_count(shape.layers)
    file.add_feed_forward_length(shape.hidden)
    file.add_head_count(shape.heads)
    file.add_head_count_kv(shape.kv_heads)
    file.add_layer_norm_rms_eps(shape.norm_eps)
    file.add_rope_dimension_count(shape.head_dim)
    file.add_rope_freq_base(shape.theta)
    file.add_tokenizer_model("no_vocab")
    file.add_vocab_size(shape.vocab)
    for name, weight in model.state_dict().items():
        if weight.ndim > 1 and dtype == torch.bfloat16:
            raw = weight.bfloat16().view(torch.int16).numpy().view(np.uint8)
            file.add_tensor(its_name(name), raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            file.add_tensor(its_name(name), weight.float().numpy())
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


@dataclass
class Row:
    """A sequence of its: how far it is, what comes next, and how it draws."""

    sampler: Any
    position: int
    token: int
    limit: int
    drawn: int = 1


class Speaker:
    """`rows` sequences at once, of at most `columns` tokens each."""

    def __init__(self, model: Transformer, dtype: torch.dtype, *, rows: int, columns: int, threads: int) -> None:
        c.llama_log_set(SILENT, None)
        c.llama_backend_init()
        self.vocab = model.shape.vocab
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            write(path, model, dtype)
            self.model = c.llama_model_load_from_file(str(path).encode(), c.llama_model_default_params())
        given = c.llama_context_default_params()
        given.n_ctx, given.n_seq_max = rows * columns, rows
        given.n_batch = given.n_ubatch = rows * columns
        given.n_threads = given.n_threads_batch = threads
        given.kv_unified = False
        if dtype == torch.float32:
            given.type_k = given.type_v = gguf.GGMLQuantizationType.F32.value
        self.context = c.llama_init_from_model(self.model, given)
        self.batch = c.llama_batch_init(rows * columns, 0, 1)

    def logits(self, at: int) -> Tensor:
        """(V,) of the batch's place `at`."""
        return torch.from_numpy(np.ctypeslib.as_array(c.llama_get_logits_ith(self.context, at), (self.vocab,)).copy())

    def read(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Reads the prompts into sequences 0, 1, …: the places of their last tokens."""
        c.llama_memory_clear(c.llama_get_memory(self.context), True)
        self.batch.n_tokens = 0
        ends = []
        for row, prompt in enumerate(prompts):
            for position, token in enumerate(prompt):
                self._add(token, position, row, position == len(prompt) - 1)
            ends.append(self.batch.n_tokens - 1)
        self._decode()
        return ends

    def greedy(self, prompts: Sequence[Sequence[int]], count: int) -> float:
        """Σ log p of each prompt's first `count` tokens, the likeliest each."""
        places, total = self.read(prompts), 0.0
        for step in range(count):
            logs = [self.logits(at).log_softmax(-1) for at in places]
            total += float(sum(log.amax() for log in logs))
            self.batch.n_tokens = 0
            for row, log in enumerate(logs):
                self._add(int(log.argmax()), len(prompts[row]) + step, row, True)
            self._decode()
            places = list(range(len(prompts)))
        return total

    def draw(self, prompts: Sequence[Sequence[int]], copies: int, limits: Sequence[int], seed: int) -> int:
        """`copies` answers to each prompt, of so many tokens; a prompt is read once. How many tokens were drawn."""
        ends = self.read(prompts)
        running: dict[int, Row] = {}
        for prompt, (end, limit) in enumerate(zip(ends, limits, strict=True)):
            for copy in range(copies):
                number = prompt if copies == 1 else copy
                if number != prompt:
                    c.llama_memory_seq_cp(c.llama_get_memory(self.context), prompt, number, -1, -1)
                sampler = c.llama_sampler_init_dist(seed * 1000 + number)  # the whole distribution, temperature 1
                token = c.llama_sampler_sample(sampler, self.context, end)
                running[number] = Row(sampler, len(prompts[prompt]), token, limit)
        count = len(running)
        while running := {number: row for number, row in running.items() if self._goes_on(row)}:
            self.batch.n_tokens = 0
            for number, row in running.items():
                self._add(row.token, row.position, number, True)
            self._decode()
            for at, row in enumerate(running.values()):
                row.token = c.llama_sampler_sample(row.sampler, self.context, at)
                row.position, row.drawn = row.position + 1, row.drawn + 1
            count += len(running)
        return count

    def _goes_on(self, row: Row) -> bool:
        if row.drawn < row.limit:
            return True
        c.llama_sampler_free(row.sampler)
        return False

    def _add(self, token: int, position: int, row: int, asked: bool) -> None:
        batch, at = self.batch, self.batch.n_tokens
        batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, position, 1, asked
        batch.seq_id[at][0] = row
        batch.n_tokens += 1

    def _decode(self) -> None:
        if c.llama_decode(self.context, self.batch) != 0:
            raise RuntimeError("llama.cpp could not read the batch")
