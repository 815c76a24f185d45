"""What the reference models share: flags, errors, fit loop, reports."""
