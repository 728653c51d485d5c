"""How many examples a budget means, and how many bytes an amount of memory."""

import decimal
import numbers
import re

import numpy as np

from svp.errors import BudgetError, SettingError

Budget = int | float | str
Memory = int | str

DEFAULT_MEMORY = 1 << 30  # bytes a method may take beside its arrays, where it can choose
_UNITS = {
    "": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def resolve_memory(memory: Memory | None) -> int:
    """Bytes: a whole number, or text such as "500MB" (10^6) or "2GiB" (2^30); None is 1 GiB. SettingError for anything else."""
    if memory is None:
        return DEFAULT_MEMORY
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", str(memory).strip().lower())
    if match is None or isinstance(memory, (bool, float)) or match[2] not in _UNITS:
        raise SettingError(f"memory={memory!r}; give bytes, or text such as '500MB' or '2GiB'")
    if (size := int(float(match[1]) * _UNITS[match[2]])) < 1 << 20:
        raise SettingError(f"memory={memory!r} is less than 1 MiB; give more")
    return size


def resolve_budget(budget: Budget, n_candidates: int) -> int:
    """The number of new examples that `budget` means when there are `n_candidates` to choose from.

    budget   a whole number of examples (25000, "25000"), or a share of the candidates, rounded down (0.1, "0.1",
             "10%"); so 1 is one, and 1.0 is all
    returns  0 .. n_candidates
    Shares are taken as they are written: 0.29 of 100 is 29, although the float nearest to 0.29 is a little less.
    Raises BudgetError for less than nothing, more than there is, or what is no number.
    """
    there = f"there are {n_candidates} candidates"
    text = str(budget).strip()
    try:
        if isinstance(budget, (bool, np.bool_)) or not isinstance(budget, (str, numbers.Real)):
            raise TypeError
        share = decimal.Decimal(text.removesuffix("%").strip())
        whole = isinstance(budget, numbers.Integral) or (isinstance(budget, str) and _is_whole(text))
        if share.is_nan():
            raise ValueError
    except (TypeError, ValueError, decimal.InvalidOperation):
        raise BudgetError(
            f"Budget {budget!r} is no number; give a number of examples, or a share such as 0.1 or '10%' ({there})"
        ) from None
    if share < 0:
        raise BudgetError(
            f"Budget {text} is less than nothing; give a number of examples, or a share such as 10% ({there})"
        )
    if whole:
        # Compared as decimals first: int() of '9' repeated thousands of times is refused by Python.
        if share > n_candidates:
            raise BudgetError(f"Budget {text} is more than there is: {there}")
        return int(share)
    if text.endswith("%"):
        share = share.scaleb(-2)
    if share > 1:
        raise BudgetError(f"Budget {text} is a share above 1 (100%); {there}, write a whole number to count them")
    with decimal.localcontext(rounding=decimal.ROUND_FLOOR):
        return int(share * n_candidates)


def _is_whole(text: str) -> bool:
    return text.removeprefix("+").removeprefix("-").replace("_", "").isdecimal()
