"""Fine-tuning by Keras' `fit`: checkpoint, data, seeds, report, prediction."""
