"""Text in and out: tokenizers, the chat format, file formats, inspection."""
