"""Speed, memory and evidence, measured; README.md says what was found."""
