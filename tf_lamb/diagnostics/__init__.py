"""What a training does, and what its numbers advise."""
