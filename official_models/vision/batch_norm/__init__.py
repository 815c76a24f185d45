"""BatchNorm as population normalization and a decay of gamma."""
