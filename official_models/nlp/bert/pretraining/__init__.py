"""BERT's pretraining: examples, masks, records, batches, report."""
