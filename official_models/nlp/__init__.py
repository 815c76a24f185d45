"""Reference language models."""
