"""What PPO's roles hold in memory: five whole models against adapters on one trunk. Counted from tensors, not from RSS.

    python benchmarks/role_memory.py            # dim 512, 8 layers, vocabulary 32,000, rank 16

Trained parameters count four times (weight, gradient, Adam's two moments), frozen ones once; shared ones once in all.
"""

from __future__ import annotations

import argparse

import torch

from ayni.model.adapters import Lora
from ayni.model.role import Role
from ayni.model.score_head import with_score_head
from ayni.model.shape import Shape
from ayni.model.trainable import to_train
from ayni.model.transformer import Transformer, initialise
from ayni.parallel import Ranks
from ayni.records import TokenSequence
from ayni.train.batch import Pair
from ayni.train.objectives import NextToken, Objective, Ranking
from ayni.train.trainer import Optimiser, Trainer


def held(roles: dict[str, Role]) -> int:
    """Bytes of all parameters, gradients and moments, each storage once, after one step of the trained roles."""
    sizes: dict[int, int] = {}
    kept: list[Trainer] = []  # moments must not be freed while others are counted
    for name, role in roles.items():
        for p in role.model.parameters():
            sizes[p.data_ptr()] = p.numel() * p.element_size()
        if not role.trainable():
            continue
        trainer = Trainer(role, Optimiser(), steps=2, ranks=Ranks())
        row = TokenSequence([1, 5, 6, 2], [False, True, True, True])
        score = role.model.shape.head == "score"
        objective: Objective = Ranking() if score else NextToken()
        trainer.gradient([Pair(row, row) if score else row], objective)
        for p in role.trainable().values():
            assert p.grad is not None, name
            sizes[p.grad.data_ptr()] = p.grad.numel() * p.grad.element_size()
        trainer.adam.step()
        for state in trainer.adam.state.values():
            for key in ("exp_avg", "exp_avg_sq"):
                sizes[state[key].data_ptr()] = state[key].numel() * state[key].element_size()
        kept.append(trainer)
    return sum(sizes.values())


def roles_of(shape: Shape, lora: Lora | None) -> dict[str, Role]:
    """Policy, critic, reference and two reward models, as the stage makes them."""
    start = initialise(Transformer(shape), 0)
    if lora is None:
        helpful, safe = (with_score_head(start, seed) for seed in (1, 2))
    else:
        helpful, safe = (with_score_head(to_train(start, lora, seed), seed) for seed in (1, 2))
    policy, critic = to_train(start, lora, 3, keep=True), to_train(helpful, lora, 4, keep=True)
    frozen = {"reference": start, "helpfulness": helpful, "safety": safe}
    return {"policy": Role(policy), "critic": Role(critic)} | {
        name: Role(model.requires_grad_(False)) for name, model in frozen.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, default=16)
    rank = parser.parse_args().rank
    shape = Shape(512, 8, 8, 8, 1376, 32_000, 1024)
    whole, adapters = (held(roles_of(shape, lora)) for lora in (None, Lora(rank=rank)))
    print(f"{shape.parameters:,} parameters, torch {torch.__version__}")
    print(f"whole models {whole / 1e6:,.0f} MB, adapters of rank {rank} on one trunk {adapters / 1e6:,.0f} MB")
    print(f"ratio {adapters / whole:.3f}")


if __name__ == "__main__":
    main()
