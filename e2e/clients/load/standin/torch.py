"""Stands in for PyTorch, of which guidellm uses the classes of a data loader: its
rows come one by one, in order. PyTorch is gigabytes, and no request goes through it."""

import sys
import types
from typing import Generic, TypeVar

Row = TypeVar("Row")


class Generator:
    def manual_seed(self, seed):
        return self


class IterableDataset(Generic[Row]):
    pass


class DataLoader(Generic[Row]):
    def __init__(self, dataset, collate_fn, **options):
        self.dataset, self.collate_fn = dataset, collate_fn

    def __iter__(self):
        return (self.collate_fn([row]) for row in self.dataset)


def add_module(name, **attributes):
    module = types.ModuleType(name)
    module.__dict__.update(attributes, __path__=[])
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    setattr(sys.modules[parent], last, module)


__path__ = []
add_module("torch.utils")
add_module("torch.utils.data", IterableDataset=IterableDataset, get_worker_info=lambda: None)
add_module("torch.utils.data.dataset", IterableDataset=IterableDataset)
add_module("torch.utils.data.dataloader", DataLoader=DataLoader)
