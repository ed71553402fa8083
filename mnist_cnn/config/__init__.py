"""What a configuration may be: its schema, how it is composed, what is said of mistakes."""
