"""The IDX format of MNIST and its successors: a big-endian header (type, rank, lengths), then bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustdistill.errors import BadInput
from robustdistill.inputs import shown

_UNSIGNED_BYTE = 8
MAX_VALUES = 2**30  # a header can claim anything


def read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    """A `.gz` or plain IDX file of unsigned bytes with `rank` dimensions. Raises BadInput."""
    where, fix = shown(path), "get the file again"
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            header = stream.read(4 + 4 * rank)
            zeros, kind, dimensions, *lengths = struct.unpack(f">HBB{rank}I", header)
            count = math.prod(lengths)
            if (zeros, kind, dimensions) != (0, _UNSIGNED_BYTE, rank) or count > MAX_VALUES:
                raise BadInput("this is not the expected IDX file", where=where, fix=fix)
            content = stream.read(count + 1)
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise BadInput(f"the IDX file is damaged: {error}", where=where, fix=fix) from error
    if len(content) != count:
        raise BadInput("the IDX file does not have the length it states", where=where, fix=fix)
    return np.frombuffer(content, dtype=np.uint8).reshape(lengths)
