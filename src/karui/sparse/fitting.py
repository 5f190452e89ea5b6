"""The largest count whose cost fits a limit, found with few evaluations of a costly, almost monotone function."""

from collections.abc import Callable

CLOSE = 0.01
"""Share of the limit that may stay unused."""

MOST_TRIES = 32


def largest_fitting(cost: Callable[[int], float], limit: float, *, most: int, guess: int) -> int:
    """The largest count in [0, most] found with cost(count) <= limit: within 1 % of the limit where the cost is smooth.

    cost rises with the count, nearly: what is returned was evaluated and fits. guess: where to begin. Between counts
    that are known the next one lies on the line through their costs; a step that gains little is a bisection.
    Returns -1 where even 0 does not fit.

    A cost that stands still, because what is added rounds to zero, would let everything in: where half of the largest
    count costs as much within 1 %, the smallest such count is returned, to a tenth.
    """
    tried: dict[int, float] = {}

    def asked(count: int) -> float:
        tried[count] = cost(count)
        return tried[count]

    found = _largest(asked, limit, most=most, guess=guess)
    if found < 0 or (found < most and tried[found] >= (1 - CLOSE) * limit):
        return found
    least = (1 - CLOSE) * tried[found]
    low = max((k for k, paid in tried.items() if paid < least), default=0)
    high = min(k for k, paid in tried.items() if least <= paid <= limit)
    while 2 * low < found and high > 1.1 * low + 1:
        middle = round((max(low, 1) * high) ** 0.5)
        low, high = (low, middle) if least <= asked(middle) <= limit else (middle, high)
    return high if 2 * high <= found else found


def _largest(cost: Callable[[int], float], limit: float, *, most: int, guess: int) -> int:
    low, low_cost = -1, 0.0
    high, high_cost = most + 1, float("inf")
    count, halve = min(max(guess, 0), most), False
    for _ in range(MOST_TRIES):
        found = cost(count)
        width = high - low
        if found <= limit:
            low, low_cost = count, found
            if count == most or found >= (1 - CLOSE) * limit:
                return low
        else:
            high, high_cost = count, found
        if high - low <= 1:
            return low
        halve = not halve and 2 * (high - low) > width
        aim = (1 - CLOSE / 2) * limit
        count = _between(low, high) if halve else _on_line(low, low_cost, high, high_cost, aim)
        count = min(max(count, low + 1), high - 1)
    return low


def _between(low: int, high: int) -> int:
    return (low + high) // 2


def _on_line(low: int, low_cost: float, high: int, high_cost: float, aim: float) -> int:
    if high_cost == float("inf"):  # only counts that fit are known: cost grows in proportion
        return max(round(low * aim / low_cost), low + 1) if low > 0 and low_cost > 0 else high - 1
    if low < 0:  # only counts too high are known
        return int(high * aim / high_cost)
    return low + int((high - low) * (aim - low_cost) / (high_cost - low_cost))
