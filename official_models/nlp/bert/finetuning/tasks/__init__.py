"""BERT's fine-tuning tasks: examples, losses, predictions, result files."""
