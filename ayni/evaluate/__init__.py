"""Win rates, reward accuracy, perplexity: what a model is worth, with intervals. Models come in as callables."""
