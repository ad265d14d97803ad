"""Reinforcement learning on the model's own answers: one loop, given its parts (paper §3.2.3)."""
