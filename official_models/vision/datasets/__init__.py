"""Image sets, in the files they are published as."""
