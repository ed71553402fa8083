"""The only place that uses private API of Lightning, Hydra and PyTorch."""
