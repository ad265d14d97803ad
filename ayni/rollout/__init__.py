"""Prompts in, samples out: the one place that decodes."""
