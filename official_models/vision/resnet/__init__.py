"""ResNet, trained with LARS and LAMB."""
