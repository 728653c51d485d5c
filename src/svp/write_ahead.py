"""Was SQLite's write-ahead log (`NAME-wal`) changed since it was written?

SQLite reads the log up to the first frame whose checksum is wrong, and drops what is behind it: that is right for what a power
cut has cut off, and wrong for damage, which would take acknowledged changes with it without a word. What follows tells which.
A transaction begins once the one before is on the disk, so that a bad frame with a later transaction behind it was whole once.
Damage in the last transaction of all cannot be told from a power cut in the middle of it.

The format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER, _FRAME = 32, 24  # bytes of the log's header, and of that of a frame, before its page
_LITTLE, _BIG = 0x377F0682, 0x377F0683  # how the log begins, by the order of bytes in its checksums


def is_damaged(log: Path) -> bool:
    """Are transactions lost in this log that were whole once? Nothing is changed. Time: a pass over its bytes, in memory."""
    content = _settled(log)
    if len(content) < _HEADER or not any(content[:_HEADER]):
        return False  # it was just begun
    magic, _, size, _, *salts = struct.unpack(">6I", content[:24])
    whole = magic in (_LITTLE, _BIG) and 512 <= size <= 1 << 16 and not size & (size - 1)
    order = "<u4" if magic == _LITTLE else ">u4"
    given = np.frombuffer(content[24:_HEADER], ">u4")[None]
    if not whole or (_sums(np.frombuffer(content[:24], order)[None], np.zeros((1, 2))) != given).any():
        return len(content) > _HEADER  # the header is on the disk before the first frame is written
    count = (len(content) - _HEADER) // (_FRAME + size)
    frames = np.frombuffer(content, np.uint8, count * (_FRAME + size), _HEADER).reshape(count, _FRAME + size)
    heads = frames[:, :_FRAME].copy().view(">u4")  # page, pages after a commit or 0, two salts, two sums
    own = (heads[:, 2:4] == salts).all(axis=1)  # others are of an earlier generation, folded into the file long ago
    words = np.concatenate([frames[:, :8], frames[:, _FRAME:]], axis=1).view(order)
    good = own & (_sums(words, np.concatenate([given, heads[:-1, 4:]])) == heads[:, 4:]).all(axis=1)
    if good.all():
        return False
    bad = int(good.argmin())
    rest = own[bad:]
    commits = np.flatnonzero(rest & (heads[bad:, 1] > 0))
    return bool(len(commits) and rest[commits[0] + 1 :].any())


def _settled(log: Path) -> bytes:
    """Its bytes, the same when read twice; nothing where there are none, or another process writes on and on."""
    content = b""
    for _ in range(9):
        try:
            before, content = content, log.read_bytes()
        except OSError:
            return b""
        if content == before:
            return content
    return b""


def _sums(words: NDArray[np.uint32], start: NDArray[Any]) -> NDArray[np.uint32]:
    """(m, 2) checksums of (m, n) words, n even, each behind one of (m, 2).

    SQLite adds two words at a time, s0 += x0 + s1 and s1 += x1 + s0: each sum is that of the two before it and a word, so that a
    word counts as often as a Fibonacci number says. All modulo 2^32.
    """
    n = words.shape[1]
    fibonacci = [0, 1]
    while len(fibonacci) < n + 2:
        fibonacci.append((fibonacci[-1] + fibonacci[-2]) & 0xFFFFFFFF)
    weights = np.array(fibonacci, np.uint32)
    plain, first = words.astype(np.uint32), start.astype(np.uint32)
    s0 = plain[:, :-1] @ weights[n - 1 : 0 : -1] + first @ weights[n - 1 : n + 1]
    s1 = plain @ weights[n:0:-1] + first @ weights[n : n + 2]
    return np.stack([s0, s1], axis=1)
