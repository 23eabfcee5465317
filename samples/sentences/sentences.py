"""Make short sentences about a few subjects, and the three inputs that a text network takes.

Two sentences about one subject may share no word: "the soup is cold", "what a chilly broth". trtbuild calls
`batches` for data; `Sentences` is the same as a map-style data set of PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

LENGTH = 12
THINGS = (
    ("soup", "broth"), ("train", "railway"), ("phone", "mobile"), ("room", "chamber"), ("coat", "jacket"),
    ("car", "vehicle"), ("cake", "pastry"), ("film", "movie"), ("house", "building"), ("road", "street"),
    ("shop", "store"), ("doctor", "physician"),
)  # fmt: skip
STATES = (
    ("cold", "chilly"), ("late", "delayed"), ("broken", "defective"), ("cheap", "inexpensive"),
    ("old", "aged"), ("fine", "good"), ("dirty", "filthy"), ("huge", "enormous"), ("small", "tiny"),
    ("quiet", "silent"), ("new", "fresh"), ("odd", "strange"),
)  # fmt: skip
FRAMES = (
    "the {thing} is {state}", "what a {state} {thing}", "i think this {thing} was rather {state} today",
    "{state} , that {thing}", "nobody told me how {state} the {thing} is", "is your {thing} {state} too",
    "we had a {thing} and it was {state}", "never seen such a {state} {thing} before",
)  # fmt: skip
WORDS = ("[pad]", "[cls]", "[sep]", *sorted({
    word for text in (*FRAMES, *(w for pair in (*THINGS, *STATES) for w in pair))
    for word in text.split() if "{" not in word
}))  # fmt: skip


def sentence(random: np.random.Generator, subject: int) -> str:
    """Return a sentence about a subject, of 144."""
    thing, state = THINGS[subject // len(STATES)], STATES[subject % len(STATES)]
    frame = str(random.choice(FRAMES))
    return frame.format(thing=random.choice(thing), state=random.choice(state))


def encode(texts: list[str]) -> dict[str, np.ndarray]:
    """Return the network's inputs, int64 ``[sentences, 12]`` each."""
    ids = np.zeros((len(texts), LENGTH), np.int64)
    for row, text in enumerate(texts):
        numbers = [1, *(WORDS.index(word) for word in text.split()), 2]
        ids[row, : len(numbers)] = numbers
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).astype(np.int64),
        "token_type_ids": np.zeros_like(ids),
    }


def batches(seed: int = 1, count: int = 16) -> Iterator[dict[str, np.ndarray]]:
    """Give batches of 16 sentences, the same ones in every call."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield encode([sentence(random, int(random.integers(144))) for _ in range(16)])


def test_batches() -> Iterator[dict[str, np.ndarray]]:
    """Give batches of other sentences, to judge on."""
    yield from batches(seed=2, count=10)


class Sentences:
    """A data set: `len`, and one sentence's inputs by number."""

    def __init__(self, seed: int, count: int) -> None:
        random = np.random.default_rng(seed)
        texts = [sentence(random, int(random.integers(144))) for _ in range(count)]
        self._inputs = encode(texts)

    def __len__(self) -> int:
        return len(self._inputs["input_ids"])

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return {name: array[number] for name, array in self._inputs.items()}
