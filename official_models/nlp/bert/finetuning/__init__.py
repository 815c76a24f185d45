"""BERT's fine-tuning: features, answers."""
