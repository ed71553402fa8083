"""Reading of handwritten digits in pictures."""
