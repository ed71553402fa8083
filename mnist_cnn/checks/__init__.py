"""Check parts of your own: python -m mnist_cnn.checks [OPTION=PART ...]

--network my_conf/model/mine.yaml   a network: a file with `_target_` and arguments, or a class
                                    whose arguments all have defaults, as my_pkg.nets.Net
--loss my_conf/loss/focal.yaml      a loss, likewise
--data my_conf/data/mine.yaml       a data module
--module my_conf/module/mine.yaml   a LightningModule, by the file that module= chooses

A file in a folder of its group, as model/mine.yaml, is composed as a run composes it, with its
`defaults`. Parts that are not given are this project's. Other options are pytest's.
"""
