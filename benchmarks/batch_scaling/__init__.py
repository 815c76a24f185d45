"""Accuracy at growing batch sizes: is the rule for the rate enough?"""
