"""Learning to weight: term weights for text classification, by a network."""
