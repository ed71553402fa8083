"""Checks that a network, a loss and a data module must pass: python -m mnist_cnn.checks.

`--network my_pkg.nets.Net --loss my_pkg.losses.Focal --data my_conf/data/mine.yaml`: a class, or a
file with `_target_` and arguments. A part that is not given is this project's own. Other options
are pytest's.
"""
