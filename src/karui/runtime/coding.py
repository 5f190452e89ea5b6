"""The coded stream of docs/format.md in plain Python: the readable twin of native/engine/coder*, for tests and porters.

`Model(None)` writes, `Model(stream)` reads; every `code_*` function takes what to write, or anything when reading, and
returns what was coded.
"""

from collections.abc import Sequence

# fmt: off
KNOTS = (
    22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768, 40793, 47911, 53581,
    57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
)
# fmt: on


def _mixed_knots(d: int) -> int:
    place, share = divmod(d + 2048, 128)
    return (KNOTS[place] * (128 - share) + KNOTS[place + 1] * share) >> 7


def squash(d: int) -> int:
    """Probability of 65536 whose ln(p / (1 - p)) is about d / 256."""
    return max(16, min(65520, _mixed_knots(max(-2047, min(2047, d)))))


def _stretch_table() -> list[int]:
    table, d = [], -2047
    for p in range(4096):
        while d < 2047 and _mixed_knots(d) >> 4 < p:
            d += 1
        table.append(d)
    return table


STRETCH = _stretch_table()


class Model:
    """Adaptive model and arithmetic coder. `part` names what a bit is part of, contexts are any hashable values."""

    def __init__(self, stream: bytes | None) -> None:
        self.low, self.high = 0, 0xFFFFFFFF
        self.out = bytearray()
        self.stream, self.read, self.value = stream, 0, 0
        self.counters: dict[object, list[int]] = {}
        self.weights: dict[object, int] = {}
        for _ in range(4 if stream is not None else 0):
            self._shift()

    def _shift(self) -> None:
        assert self.stream is not None
        if self.read > len(self.stream) + 3:
            raise ValueError("the coded stream ends too early")
        self.value = (
            self.value << 8 | (self.stream[self.read] if self.read < len(self.stream) else 0)
        ) & 0xFFFFFFFF
        self.read += 1

    def _code(self, p: int, bit: int) -> int:
        width = self.high - self.low
        middle = self.low + (width >> 16) * p + (((width & 0xFFFF) * p) >> 16)
        if self.stream is not None:
            bit = int(self.value <= middle)
        self.low, self.high = (self.low, middle) if bit else (middle + 1, self.high)
        while (self.low ^ self.high) >> 24 == 0:
            self.out.append(self.high >> 24)
            self.low, self.high = self.low << 8 & 0xFFFFFFFF, (self.high << 8 | 255) & 0xFFFFFFFF
            if self.stream is not None:
                self._shift()
        return bit

    def plain_bit(self, bit: int) -> int:
        """An equally likely bit."""
        return self._code(32768, bit)

    def bit(self, part: str, contexts: Sequence[object], bit: int, weights: int = 0) -> int:
        """A bit under contexts, mixed with one of the sets of weights of its part."""
        counters = [
            self.counters.setdefault((part, i, context), [32768, 0]) for i, context in enumerate(contexts)
        ]
        names = [(part, weights, i, min(seen, 8)) for i, (_, seen) in enumerate(counters)]
        stretched = [STRETCH[q >> 4] if seen else 0 for q, seen in counters]
        first = 1 << 14 if part in ("prefix", "letter") else 1 << 13
        total = sum(s * self.weights.get(name, first) for s, name in zip(stretched, names, strict=True))
        p = squash(total >> 16)
        bit = self._code(p, bit)
        error = (bit << 16) - p
        for counter, s, name in zip(counters, stretched, names, strict=True):
            moved = self.weights.get(name, first) + ((s * error * 3 + 32768) >> 16)
            self.weights[name] = max(-(1 << 22), min(1 << 22, moved))
            counter[0] += (((65535 if bit else 0) - counter[0]) * (131072 // (2 * counter[1] + 3))) >> 16
            counter[1] = min(255, counter[1] + 1)
        return bit

    def finish(self) -> bytes:
        """The written stream."""
        for count in range(5):
            unit = 1 << (32 - 8 * count)
            value = -(-self.low // unit) * unit
            if value <= self.high:
                return bytes(self.out) + (value >> (32 - 8 * count)).to_bytes(count, "big")
        raise AssertionError("four bytes always lie in the interval")


def code_words(model: Model, words: Sequence[bytes], count: int) -> list[bytes]:
    """Sorted words without NUL."""
    found: list[bytes] = []
    before, before_prefix = b"", 0
    for number in range(count):
        wanted = words[number] if model.stream is None else b""
        same = next(
            (i for i, (a, b) in enumerate(zip(wanted, before, strict=False)) if a != b),
            min(len(wanted), len(before)),
        )
        prefix = len(before)
        for i in range(len(before)):
            n = min(i, 15)
            next_bytes = (before + bytes(3))[i : i + 4]
            contexts = (
                n,
                (n, min(before_prefix, 255)),
                (n, min(len(before), 255)),
                (n, before[i]),
                (bytes(2) + before)[i : i + 3],
                next_bytes,
            )
            if model.bit("prefix", contexts, int(i == same)):
                prefix = i
                break
        word = before[:prefix]
        while True:
            letter = wanted[len(word)] if len(word) < len(wanted) else 0
            last, since = bytes(3) + word, min(len(word) - prefix, 3)
            replaced = before[prefix] if since == 0 and prefix < len(before) else 0
            vowels = tuple(letter_before in b"aeiouy" for letter_before in last[-3:])
            node = 1
            for place in range(7, -1, -1):
                contexts = (
                    node,
                    (last[-1:], node),
                    (last[-2:], node),
                    (last[-3:], node),
                    (since == 0, replaced, node),
                    (since, replaced, last[-1], node),
                    (vowels, node),
                )
                node = node << 1 | model.bit("letter", contexts, letter >> place & 1, since)
            if not node & 255:
                break
            word += bytes([node & 255])
        found.append(word)
        before, before_prefix = word, prefix
    return found


def code_number(model: Model, record: int, use: int, value: int) -> int:
    """A number below 2^25."""
    length, n = value.bit_length(), 0
    while n < 25 and not model.bit("number", ((record, use, n), (use, n)), int(n == length)):
        n += 1
    if n < 2:
        return n
    result = 1
    for k in range(n - 2, -1, -1):
        bit = value >> k & 1
        first = k == n - 2
        result = result << 1 | (
            model.bit("number", ((record, use, "top", n), (use, "top", n)), bit)
            if first
            else model.plain_bit(bit)
        )
    return result


class MatrixCoder:
    """A matrix of integers, or of the bit patterns of fp16 or fp32, as rows of numbers."""

    def __init__(
        self,
        model: Model,
        cols: int,
        *,
        record: int,
        values: int,
        largest: int,
        hints: Sequence[int] | None = None,
    ) -> None:
        self.model, self.cols, self.record, self.values, self.largest, self.hints = (
            model,
            cols,
            record,
            values,
            largest,
            hints,
        )
        self.column = [(0, 0)] * cols  # sign and bit length of the last kept value
        self.above = [0] * cols

    def run(self, rows: list[list[int]], layout: int) -> list[list[int]]:
        """Code all rows; when reading they are ignored but for their number."""
        return [self._row(row or [0] * self.cols, number, layout) for number, row in enumerate(rows)]

    def _row(self, row: list[int], number: int, layout: int) -> list[int]:
        self.left, self.left_col, self.kept = (0, 0), 0, 0
        self.first, self.last, self.before_last = 0, 0, 0
        self.hint = self.hints[number] if self.hints is not None else None
        out, bits = [0] * self.cols, 0
        if layout == 2:
            col, places = -1, [i for i, code in enumerate(row) if code]
            for k in range(code_number(self.model, self.record, 0, len(places))):
                col += 1 + code_number(
                    self.model, self.record, 1, places[k] - col - 1 if k < len(places) else 0
                )
                out[col] = self._value(col, row[col], may_be_zero=False)
            return out
        for col, code in enumerate(row):
            kept = 1
            if layout == 1:
                above, own = self.above[col], (self.record,)
                contexts = [
                    (above, bits),
                    (*own, col),
                    (*own, bits, above),
                    (*own, col, min(self.kept, 15)),
                    (*own, col, above, bits & 1),
                    (*own, col, self.before_last, self.last),
                ]
                if self.hint is not None:
                    contexts.append((*own, col, self.hint))
                kept = self.model.bit("mask", contexts, int(code != 0))
                bits = (bits << 1 | kept) & 3
            out[col] = self._value(col, code, may_be_zero=layout == 0) if kept else 0
            self.above[col] = kept
        return out

    def _value(self, col: int, code: int, *, may_be_zero: bool) -> int:
        result = self._integer(col, code, may_be_zero) if self.values == 0 else self._float(col, code)
        if result:
            size = result if self.values == 0 else 1
            self.left = self.column[col] = (1 if size > 0 else 2, abs(size).bit_length())
            self.left_col = col + 1
            self.before_last, self.last = self.last, 1 + 2 * (col & 1023) + (size < 0)
            self.first = self.first or self.last
            self.kept += 1
        return result

    def _integer(self, col: int, code: int, may_be_zero: bool) -> int:
        longest, n = self.largest.bit_length(), 0 if may_be_zero else 1
        while n < longest and not self._integer_bit("size", col, n, int(n == abs(code).bit_length())):
            n += 1
        result = min(n, 1)
        for k in range(n - 2, -1, -1):
            result = result << 1 | self._integer_bit("size", col, (n, result), abs(code) >> k & 1)
        return -result if result and self._integer_bit("sign", col, 0, int(code < 0)) else result

    def _integer_bit(self, part: str, col: int, node: object, bit: int) -> int:
        own, sign = (self.record, node), self.left[0]
        contexts: list[object] = [
            node,
            own,
            (*own, col),
            (*own, self.left),
            (*own, self.column[col]),
            (*own, col, sign),
        ]
        if part == "sign":
            contexts += [
                (*own, self.left_col, sign, col),
                (*own, col, self.first),
                (*own, col, self.before_last),
            ]
            if self.hint is not None:
                contexts.append((*own, col, self.hint))
        return self.model.bit(part, contexts, bit)

    def _float(self, col: int, code: int) -> int:
        count, result, top = (2 if self.values == 1 else 4), 0, 0
        for k in range(count):
            byte, node = code >> (8 * (count - 1 - k)) & 255, 1
            for place in range(7, -1, -1):
                at, bit = (k, top, node), byte >> place & 1
                contexts = (at, (self.record, at), (self.record, col, at))
                node = node << 1 | (
                    self.model.bit("byte", contexts, bit) if k < 2 else self.model.plain_bit(bit)
                )
            top = node & 255
            result = result << 8 | top
        return result - (1 << 32) if result >> 31 else result


def code_pairs(
    model: Model, pairs: Sequence[tuple[int, int]], count: int, *, hints: Sequence[int]
) -> list[tuple[int, int]]:
    """Pairs of ids, 1 to the number of hints, sorted; hints as `karui.runtime.pairs.word_hints` makes them."""
    found: list[tuple[int, int]] = []
    times = [0] * (len(hints) + 1)
    seconds: dict[int, list[int]] = {}
    for first, second in pairs:
        seconds.setdefault(first, []).append(second)
    for first in range(1, len(hints) + 1):
        if len(found) == count:
            break
        wanted, before = seconds.get(first, []), 0
        for k in range(_code_count(model, hints[first - 1], times[first], len(wanted))):
            before = _code_second(model, len(hints).bit_length(), before, wanted[k] if k < len(wanted) else 0)
            found.append((first, before))
            times[before] += 1
    return found


def _code_count(model: Model, hint: int, times: int, count: int) -> int:
    length, n = count.bit_length(), 0
    while n < 21:
        contexts = (n, (hint & 15, n), (hint >> 4, n), (min(times, 3), n))
        if model.bit("count", contexts, int(n == length)):
            break
        n += 1
    node = min(n, 1)
    for k in range(n - 2, -1, -1):
        node = node << 1 | model.bit("count", (("lower", n, node),), count >> k & 1)
    return node


def _code_second(model: Model, bits: int, before: int, word: int) -> int:
    node = 1
    for k in range(bits - 1, -1, -1):
        same, its = node == 1 << (bits - 1 - k) | before >> (k + 1), before >> k & 1
        contexts = (node, (k, same, its), (node, same, its))
        node = node << 1 | model.bit("second", contexts, word >> k & 1)
    return node - (1 << bits)
