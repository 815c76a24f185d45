"""Transformer layers that several models share."""
