"""What the attention heads of BERT and ALBERT do, and what they are for."""
