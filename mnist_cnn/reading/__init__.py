"""From a picture of handwriting to the digits in it."""
