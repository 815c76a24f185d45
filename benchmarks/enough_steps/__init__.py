"""Accuracy against the batch where the largest batch has enough updates."""
