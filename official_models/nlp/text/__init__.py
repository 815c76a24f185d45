"""Text: corpora, tokenizers."""
