"""Few-shot image classification with the large-margin term (Wang et al.)."""
