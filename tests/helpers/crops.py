"""Rules of crops that tests go through: one of each kind, of pictures and of values."""

from __future__ import annotations

from dataclasses import replace

from randfeat.pretrain import CentreCrops, MovedCrops, RandomCrops, TenCrops

SIZE = (4, 6)
DEEP = (0.0, 65535.0)  # range of values of 16 bits
RULES = {
    "centre": CentreCrops(SIZE, 3, flip=False),
    "flip": CentreCrops(SIZE, 3),
    "ten": TenCrops(SIZE, 3, (1.5, 1.25)),
    "random": RandomCrops(SIZE, 3, 3, seed=5),
    "moved": MovedCrops(SIZE, 3, 3, seed=5),
}
VALUE_RULES = {name: replace(rule, channels=4, value_range=DEEP) for name, rule in RULES.items() if name != "centre"}
