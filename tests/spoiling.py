"""Files spoilt from a seed: bytes, words, and values of JSON."""

import string
from pathlib import Path

import numpy as np

WORDS = (
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"..", b"../", b"/etc/passwd", b"~", b"-1", b"nan", b"inf", b"1e400", b"9" * 400,
    b"null", b"[" * 5000, b"<" * 50, b"%s", b"\x1b[31m", b"\r\n", b"caf\xe9", "山".encode(), b"True", b"0x10", b" ",
)  # fmt: skip


def spoil(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, cut, doubled, or replaced by a word of mischief, here and there."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(content) + 1))
        end = min(len(content), at + int(rng.integers(1, 40)))
        match rng.integers(6):
            case 0:
                for k in rng.integers(0, max(1, len(content)), 8):
                    content[k : k + 1] = bytes([rng.integers(256)])
            case 1:
                del content[at:end]
            case 2:
                content[at:at] = content[at:end] * int(rng.integers(1, 20))
            case 3:
                del content[at:]
            case _:
                content[at:end] = WORDS[rng.integers(len(WORDS))]
    return bytes(content)


def spoil_tokens(text: str, rng: np.random.Generator) -> bytes:
    """A number or name between signs replaced by a word of mischief: the file keeps its form."""
    runs, inside = [], False
    for at, character in enumerate(text):
        if (character in string.ascii_letters + string.digits + "._-") != inside:
            inside = not inside
            runs.append(at)
    start = int(rng.integers(len(runs) // 2)) * 2
    word = WORDS[rng.integers(len(WORDS))]
    return (
        text[: runs[start]].encode()
        + word
        + text[runs[start + 1] if start + 1 < len(runs) else len(text) :].encode()
    )


def spoil_text(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(spoil(content, rng) if rng.integers(2) else spoil_tokens(content.decode(), rng))


def spoil_json(value, rng):
    """A value somewhere in a JSON object replaced by another of any type."""
    odd = [
        None,
        True,
        -1,
        2**70,
        1e308,
        "",
        "\0",
        "../x",
        "\ud800",
        [],
        [[]],
        {},
        {"a": 1},
        [1] * 1000,
        "x" * 5000,
    ]
    key = list(value)[rng.integers(len(value))]
    if isinstance(value[key], dict) and value[key] and rng.integers(2):
        return value | {key: spoil_json(value[key], rng)}
    match rng.integers(5):
        case 0:
            return {name: inside for name, inside in value.items() if name != key}
        case 1:
            return value | {"more": 1}
        case _:
            return value | {key: odd[rng.integers(len(odd))]}
