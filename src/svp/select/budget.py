"""How many examples a budget means."""

import decimal
import numbers

import numpy as np

from svp.errors import BudgetError

Budget = int | float | str


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
        raise BudgetError(f"Budget {text} is less than nothing; {there}")
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
