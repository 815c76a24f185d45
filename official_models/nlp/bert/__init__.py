"""BERT: corpus, pretraining data, model and train scripts."""
