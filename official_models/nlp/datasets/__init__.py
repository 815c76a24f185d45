"""Labelled text sets, in the files they are published as."""
