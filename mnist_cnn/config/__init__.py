"""Configuration: schema, composition, instantiation and error messages."""
