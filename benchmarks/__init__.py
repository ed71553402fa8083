"""Measure the results that this project states; not part of the wheel."""
