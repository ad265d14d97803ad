"""Reward models as callables."""
