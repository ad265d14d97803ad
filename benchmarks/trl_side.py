"""TRL's trainers as sides: their own loop, which stops at the end of a turn and goes on when the next begins.

Driven as its users would on one machine: no gradient checkpointing, no saving, no logging, no workers, the same fused
AdamW. Lengths are not grouped: that is off by default, and would change the order of the data.
"""

from __future__ import annotations

import atexit
import copy
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from ayni.model.hugging_face import config_of, their_tensors
from ayni.model.transformer import Transformer
from ayni.train.trainer import Optimiser
from benchmarks.data import BOS, EOS, PAD
from benchmarks.options import Options
from benchmarks.side import Turns


def theirs(model: Transformer) -> Any:
    """transformers' Llama with our weights: a language model, or a classifier of one label under a score head."""
    config = LlamaConfig(**config_of(model.shape, dtype=torch.float32, bos=BOS, eos=EOS, pad=PAD))
    score = model.shape.head == "score"
    loaded = (LlamaForSequenceClassification if score else LlamaForCausalLM)(config)
    # a copy, as theirs trains in place; strict, so that no weight is left as it was drawn
    loaded.load_state_dict({name: tensor.clone() for name, tensor in their_tensors(model)}, strict=True)
    return loaded


def tokenizer(vocab: int, *, pad: int = PAD, side: str = "right") -> PreTrainedTokenizerFast:
    """Whose words are its ids, for data that is tokenised already; `pad` may lie beyond the vocabulary."""
    ids = {word(id): id for id in range(vocab) if id != pad} | {"<pad>": pad}
    inner = Tokenizer(WordLevel(ids, unk_token="<pad>"))
    inner.pre_tokenizer = WhitespaceSplit()
    named = {"bos_token": word(BOS), "eos_token": word(EOS), "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, padding_side=side, **named)


def word(id: int) -> str:
    """A special one must not be found inside another word, as digits would be."""
    return {BOS: "<s>", EOS: "</s>"}.get(id, str(id))


def words(ids: Sequence[int]) -> str:
    """As that tokenizer reads them."""
    return " ".join(map(word, ids))


def dataset(columns: Mapping[str, Sequence[Any]]) -> Dataset:
    return Dataset.from_dict({name: list(values) for name, values in columns.items()})


def settings(options: Options, optimiser: Optimiser, rows: int) -> dict[str, Any]:
    """TrainingArguments of every trainer: our optimiser, the data in order, so many rows a step, nothing written."""
    directory = tempfile.mkdtemp(prefix="benchmark-")  # a trainer insists on one
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return {
        "output_dir": directory,
        "per_device_train_batch_size": rows,
        "max_steps": options.all_steps,
        "train_sampling_strategy": "sequential",
        "learning_rate": optimiser.lr,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": optimiser.weight_decay,
        "adam_beta1": optimiser.betas[0],
        "adam_beta2": optimiser.betas[1],
        "adam_epsilon": optimiser.eps,
        "max_grad_norm": optimiser.clip,
        "optim": "adamw_torch_fused",
        "bf16": options.dtype == "bf16",
        "use_cpu": options.device == "cpu",
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": options.device == "cuda",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


class _Turn(TrainerCallback):
    """Ends a turn after its last optimiser step and waits for the next: fetching and laying out a batch count."""

    def __init__(self, turns: Turns, steps: int) -> None:
        self.turns, self.steps = turns, steps
        self.losses: list[torch.Tensor] = []
        self.tokens: list[int] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.turns.begin()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if len(self.losses) == self.steps:
            self.turns.end(sum(self.tokens), losses=[float(loss) for loss in self.losses])
            self.losses, self.tokens = [], []
            self.turns.begin()


def taking_turns(trainer: Any, turns: Turns, options: Options) -> Any:
    """The trainer's class, with each step's loss and real tokens noted down and a pause between turns."""
    callback = _Turn(turns, options.steps)

    class Taking(trainer):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given, callbacks=[callback])

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            mask = inputs.get("attention_mask")
            callback.tokens.append(int(mask.sum()) if mask is not None else inputs["input_ids"].numel())
            loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
            callback.losses.append(loss.detach())
            return loss

    return Taking


def frozen(model: Any, dtype: torch.dtype) -> Any:
    """A copy that does not learn, in its own number format."""
    return copy.deepcopy(model).to(dtype).requires_grad_(False).eval()
