"""ayni: the whole Llama 2 → Llama 2-Chat system, from corpus to a model you talk to."""

__version__ = "0.1.0"
