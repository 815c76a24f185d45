"""Checkpoints of BERT and ALBERT, read and written in every usual form."""
