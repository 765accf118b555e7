"""Damage to a model's files, and what it must come to: an answer, or one line that says why there is none."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from bertram import artifacts
from bertram.errors import BertramError
from bertram.memory import current_memory_mb, peak_memory_mb

VALUES = [None, True, False, -1, 0, 1, 2, 3, 7, 1024, 2**24, 2**31, 2**63, -(2**63), 2**64, 10**400, 0.5, -0.0, 5e-324]
VALUES += [1e308, float("nan"), float("inf"), "", "a", "gelu", "none", "../../x", "\ud800", "\n\x1b[2J" * 99]
VALUES += [[], [0], [[]], {}, {"0": "a"}]
PIECES = [b"9", b"-", b"99999999", b"[", b"{", b'"', b"\0", b"\xff", b"e9"]


def bytes_of(content: bytes, chance: Random, structure: range = range(3000)) -> bytes:
    """A few bytes changed, put in, taken out or doubled, or the rest cut off; mostly where the `structure` is."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 3])):
        places = structure[: len(data)] if chance.random() < 0.7 else range(len(data))
        place = chance.choice(places) if places else 0
        match chance.randrange(7):
            case 0:
                data[place : place + 1] = bytes(byte ^ 1 << chance.randrange(8) for byte in data[place : place + 1])
            case 1:
                data[place : place + 1] = chance.choice(PIECES)
            case 2:
                data[place : place + 8] = chance.randbytes(8)
            case 3:
                data[place:place] = data[place : place + chance.choice([1, 8, 40, 400])]
            case 4:
                del data[place : place + chance.choice([1, 8, 40])]
            case 5:
                data += chance.randbytes(chance.choice([1, 4, 64]))
            case 6:
                del data[place:]
    return bytes(data)


def json_of(value: Any, chance: Random) -> Any:
    """The same JSON, but something in it is replaced, left out, renamed, doubled or copied from elsewhere in it."""
    return _changed(value, chance, list(_parts(value)))


def _parts(value: Any) -> Iterator[Any]:
    yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _parts(part)


def _changed(value: Any, chance: Random, elsewhere: list[Any]) -> Any:
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        rest, other = {name: item for name, item in value.items() if name != key}, chance.choice(list(value))
        match chance.randrange(8):
            case 0:
                return rest
            case 1:
                return rest | {other + chance.choice(["", "x"]): value[key]}
            case 2:
                return value | {chance.choice(["", "x", other, other + "x"]): value[key]}
        return value | {key: _changed(value[key], chance, elsewhere)}
    if isinstance(value, list) and value and chance.random() < 0.7:
        place = chance.randrange(len(value))
        if chance.random() < 0.2:
            return [*value[:place], *value[place + 1 :]]
        return [*value[:place], _changed(value[place], chance, elsewhere), *value[place + 1 :]]
    if type(value) is int and chance.random() < 0.5:
        return value + chance.choice([-8, -4, -1, 1, 4, 8])
    return chance.choice(elsewhere if chance.random() < 0.2 else VALUES)


def tensors_of(content: bytes, chance: Random) -> bytes:
    """A .safetensors file with a damaged header of a right or a wrong length, or with damaged bytes."""
    if chance.random() < 0.4:
        return bytes_of(content, chance)
    length = int.from_bytes(content[:8], "little")
    header = _json_bytes(content[8 : 8 + length], chance)
    stated = len(header) if chance.random() < 0.8 else chance.choice([0, 1, len(header) + 8, 2**32, 2**63, 2**64 - 1])
    return stated.to_bytes(8, "little") + header + content[8 + length :]


def _json_bytes(content: bytes, chance: Random) -> bytes:
    value = json.loads(content)
    for _ in range(chance.choice([1, 1, 1, 3])):
        value = json_of(value, chance)
    return json.dumps(value).encode()


def file_of(name: str, content: bytes, chance: Random) -> bytes:
    """A file damaged as its name lets one, and some JSON as deep as no reader should follow."""
    if name.endswith(".safetensors"):
        return tensors_of(content, chance)
    if name.endswith(".json") and (kind := chance.random()) < 0.8:
        return b'{"a":' * 100_000 if kind < 0.02 else _json_bytes(content, chance)
    return bytes_of(content, chance)


@contextmanager
def peak_below(megabytes: float) -> Iterator[None]:
    """At no time what is done takes so much more memory than there was taken."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is taken (proc_pid_clear_refs(5))
    before = current_memory_mb()
    yield
    assert peak_memory_mb() - before < megabytes


def refusal(place: Path) -> str | None:
    """What is said of a model that cannot be used; None if it answers."""
    try:
        answers = artifacts.load(place).predict(["a [MASK] film", "[MASK]"])
    except BertramError as error:
        return str(error)
    assert len(answers) == 2
    return None


def survive(
    path: Path,
    damage: Callable[[bytes, Random], bytes],
    use: Callable[[], str | None],
    attempts: Iterable[int],
    megabytes: float,
) -> int:
    """Damage a file over and over; how often it was of use all the same.

    Args:
        damage: makes other content of the file's.
        use: what is said of a file that cannot be used; None if it can.
        attempts: seeds.
        megabytes: that all attempts together may take at their peak.
    """
    content, loaded = path.read_bytes(), 0
    with peak_below(megabytes):
        for seed in attempts:
            path.write_bytes(damage(content, random.Random(seed)))
            said = use()
            loaded += said is None
            assert said is None or (len(said) < 1000 and said.isprintable()), (path.name, seed, said)
    return loaded
