# Prints how many rows of a catalogue suit, and the milliseconds that a linear scan of all rows takes, which are read before.
import csv
import sys
import time
from dataclasses import dataclass
from typing import Optional


@dataclass
class Item:
    instance_name: str
    location: str
    price: float
    cpu: int
    memory: float
    gpu_count: int
    gpu_name: Optional[str]
    gpu_memory: Optional[float]
    spot: bool


def read(path):
    with open(path, newline="") as f:
        return [
            Item(r["instance_name"], r["location"], float(r["price"]), int(r["cpu"]), float(r["memory"]), int(r["gpu_count"]),
                 r["gpu_name"] or None, float(r["gpu_memory"]) if r["gpu_memory"] else None, r["spot"] == "True")
            for r in csv.DictReader(f)
        ]


def in_range(value, least, most):
    return (least is None or value >= least) and (most is None or value <= most)


def suits(item, want):
    if want["max_price"] is not None and item.price > want["max_price"]:
        return False
    if want["spot"] is not None and item.spot != want["spot"]:
        return False
    if not in_range(item.cpu, *want["cpu"]) or not in_range(item.memory, *want["memory"]):
        return False
    if not in_range(item.gpu_count, *want["gpu_count"]):
        return False
    if want["gpu_name"] is not None and (item.gpu_name or "").lower() not in want["gpu_name"]:
        return False
    return in_range(item.gpu_memory or 0, *want["gpu_memory"])


items = read(sys.argv[1])
want = {"max_price": 35.0, "spot": None, "cpu": (2, None), "memory": (8, None), "gpu_count": (1, None), "gpu_name": None, "gpu_memory": (24, None)}
began = time.perf_counter()
found = sorted((i for i in items if suits(i, want)), key=lambda i: i.price)
print(len(found), (time.perf_counter() - began) * 1000)
