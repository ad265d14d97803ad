"""Text in and out: tokenizers, the chat format, duplicates."""
