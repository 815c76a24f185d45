"""Measurements of the optimizers against their peers; results/ keeps them."""
