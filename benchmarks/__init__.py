"""What proves the claims about this project: not part of the wheel."""
