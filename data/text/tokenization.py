"""The one seam between text and ids: a tokenizer and a vocabulary, built in or torchtext's.

torchtext is archived: its last release loads with torch 2.3.x only. So the same rules live here, and tests hold
both paths to facts that torchtext 0.18.0 returned; where torchtext does load, it can do the work itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import DataError

PAD, UNK = "<pad>", "<unk>"
SPECIALS = [PAD, UNK]  # their ids are their positions: 0 and 1
BACKENDS = ("auto", "builtin", "torchtext")

_SPACED = {ord(mark): f" {mark} " for mark in "'.,()!?"}
_RULES = str.maketrans({**_SPACED, ord(";"): " ", ord(":"): " "})


class Vocabulary(Protocol):
    """What both backends offer: ids for tokens (an unknown one is `<unk>`), and the token of each id."""

    def __call__(self, tokens: list[str], /) -> list[int]:
        """Return the id of each token."""

    def get_itos(self) -> list[str]:
        """Return the token of each id."""


class BuildVocabulary(Protocol):
    """Build a vocabulary: specials first, then by falling frequency, equal ones in lexicographic order."""

    def __call__(
        self, documents: Iterable[Sequence[str]], *, max_tokens: int | None = None, min_freq: int = 1
    ) -> Vocabulary:
        """Return at most `max_tokens` entries, the specials among them, each seen `min_freq` times or more."""


@dataclass(frozen=True)
class TextBackend:
    """One way of making tokens and vocabularies; `note` tells the user which one it is, and why."""

    name: str
    note: str
    tokenize: Callable[[str], list[str]]
    build_vocabulary: BuildVocabulary


def basic_english(text: str) -> list[str]:
    """Return the tokens of `text`: lower case, marks set apart, quotes dropped, `<br />` a space; may be empty."""
    # Quotes go before the break is looked for: torchtext reads `<br" />` as a break too.
    return text.lower().replace('"', "").replace("<br />", " ").translate(_RULES).split()


class BuiltinVocabulary:
    """A list of tokens and its inverse; a token that is not in it gets the id of `<unk>`."""

    def __init__(self, itos: list[str]) -> None:
        self.itos = itos
        self.ids = {token: number for number, token in enumerate(itos)}

    def __call__(self, tokens: list[str], /) -> list[int]:
        """Return the id of each token."""
        unknown = self.ids[UNK]
        return [self.ids.get(token, unknown) for token in tokens]

    def get_itos(self) -> list[str]:
        """Return the token of each id."""
        return list(self.itos)


def _build_builtin(
    documents: Iterable[Sequence[str]], *, max_tokens: int | None = None, min_freq: int = 1
) -> BuiltinVocabulary:
    counts: Counter[str] = Counter()
    for tokens in documents:
        counts.update(tokens)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if max_tokens is not None:
        ranked = ranked[: _room(max_tokens)]
    # A special that occurs in a text takes a place among the ranked and loses it again, as in torchtext.
    words = [token for token, count in ranked if count >= min_freq and token not in SPECIALS]
    return BuiltinVocabulary([*SPECIALS, *words])


def _room(max_tokens: int) -> int:
    if max_tokens <= len(SPECIALS):
        raise DataError(
            f"vocab_size: got {max_tokens}; expected at least {len(SPECIALS) + 1}, {PAD} and {UNK} included"
        )
    return max_tokens - len(SPECIALS)


def import_torchtext() -> Any:
    """Import torchtext, its deprecation banner silenced; ImportError or OSError where it does not load."""
    import torchtext

    torchtext.disable_torchtext_deprecation_warning()  # before the submodules, which print it
    import torchtext.data
    import torchtext.vocab

    return torchtext


def _torchtext_backend() -> TextBackend:
    torchtext = import_torchtext()

    def build(documents: Iterable[Sequence[str]], *, max_tokens: int | None = None, min_freq: int = 1) -> Any:
        if max_tokens is not None:
            _room(max_tokens)
        vocabulary = torchtext.vocab.build_vocab_from_iterator(
            documents, min_freq=min_freq, specials=SPECIALS, max_tokens=max_tokens
        )
        vocabulary.set_default_index(SPECIALS.index(UNK))
        return vocabulary

    tokenize = torchtext.data.utils.get_tokenizer("basic_english")
    note = f"text backend: torchtext {torchtext.__version__} (tokenizer, vocabulary and vectors)"
    return TextBackend("torchtext", note, tokenize, build)


def resolve_backend(name: str = "auto") -> TextBackend:
    """Return the backend `auto` (torchtext where it loads, else built-in), `builtin` or `torchtext`.

    Raises DataError for another name, and for `torchtext` where it does not load.
    """
    if name not in BACKENDS:
        raise DataError(f"text_backend: got {name!r}; expected one of {', '.join(BACKENDS)}")
    reason = "as asked"
    if name != "builtin":
        try:
            return _torchtext_backend()
        except ImportError:
            reason = "torchtext is not installed"
        except OSError:  # its compiled part fits one release of torch
            reason = "torchtext does not load with this torch"
        if name == "torchtext":
            raise DataError(
                f"text_backend torchtext: {reason}; make an environment from requirements-torchtext.txt, "
                "or set text_backend to auto or builtin"
            )
    note = f"text backend: built-in, with torchtext's basic_english rules and vocabulary order ({reason})"
    return TextBackend("builtin", note, basic_english, _build_builtin)
