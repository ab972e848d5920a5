"""Where raw data come from: one source a file. A new one is a file, a line in SOURCES, and a row in its test."""

from __future__ import annotations

from robustdistill.data.sources.cifar10 import Cifar10
from robustdistill.data.sources.digits import Digits
from robustdistill.data.sources.fashion_mnist import FashionMNIST
from robustdistill.data.sources.image_folder import ImageFolder
from robustdistill.data.sources.module import Module
from robustdistill.data.sources.npz import Npz
from robustdistill.data.sources.types import Source
from robustdistill.registry import table

SOURCES: dict[str, type[Source]] = table("source", Digits, FashionMNIST, Cifar10, ImageFolder, Npz, Module)

__all__ = ["SOURCES", "Source"]
