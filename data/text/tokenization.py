"""From text to ids: a tokenizer and a vocabulary, built in or torchtext's.

torchtext is archived: its last release loads with torch 2.3.x only. So the same rules are implemented here, and tests
compare both implementations with what torchtext 0.18.0 returned. Where torchtext loads, it can do the work itself.
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
    """What both backends offer: the id of each token (that of `<unk>` for others), and the token of each id."""

    def __call__(self, tokens: list[str], /) -> list[int]:
        """Return the id of each token."""

    def get_itos(self) -> list[str]:
        """Return the token of each id."""


class BuildVocabulary(Protocol):
    """Build a vocabulary: specials first, then tokens by falling frequency, ties in lexicographic order."""

    def __call__(
        self, documents: Iterable[Sequence[str]], *, max_tokens: int | None = None, min_freq: int = 1
    ) -> Vocabulary:
        """Return at most `max_tokens` entries, specials included; every other one occurs at least `min_freq` times."""


@dataclass(frozen=True)
class TextBackend:
    """A tokenizer and a vocabulary builder; `note` tells the user which backend it is, and why."""

    name: str
    note: str
    tokenize: Callable[[str], list[str]]
    build_vocabulary: BuildVocabulary


def basic_english(text: str) -> list[str]:
    """Return the tokens of `text`: lower case, punctuation apart, no quotes, `<br />` as a space; may be empty."""
    # Quotes are removed before breaks are replaced: torchtext takes `<br" />` for a break too.
    return text.lower().replace('"', "").replace("<br />", " ").translate(_RULES).split()


class BuiltinVocabulary:
    """A list of tokens and its inverse; a token outside it gets the id of `<unk>`."""

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
        ranked = ranked[: _tokens_beside_specials(max_tokens)]
    # As in torchtext, a special that occurs in a text uses up one of the `max_tokens` and is then dropped.
    words = [token for token, count in ranked if count >= min_freq and token not in SPECIALS]
    return BuiltinVocabulary([*SPECIALS, *words])


def _tokens_beside_specials(max_tokens: int) -> int:
    if max_tokens <= len(SPECIALS):
        raise DataError(
            f"vocab_size: got {max_tokens}; expected at least {len(SPECIALS) + 1}, {PAD} and {UNK} included"
        )
    return max_tokens - len(SPECIALS)


def import_torchtext() -> Any:
    """Import torchtext without its deprecation banner; ImportError or OSError if it does not load."""
    import torchtext

    torchtext.disable_torchtext_deprecation_warning()  # before the submodules, which print it
    import torchtext.data
    import torchtext.vocab

    return torchtext


def _torchtext_backend() -> TextBackend:
    torchtext = import_torchtext()

    def build(documents: Iterable[Sequence[str]], *, max_tokens: int | None = None, min_freq: int = 1) -> Any:
        if max_tokens is not None:
            _tokens_beside_specials(max_tokens)
        vocabulary = torchtext.vocab.build_vocab_from_iterator(
            documents, min_freq=min_freq, specials=SPECIALS, max_tokens=max_tokens
        )
        vocabulary.set_default_index(SPECIALS.index(UNK))
        return vocabulary

    tokenize = torchtext.data.utils.get_tokenizer("basic_english")
    note = f"text backend: torchtext {torchtext.__version__} (tokenizer, vocabulary and vectors)"
    return TextBackend("torchtext", note, tokenize, build)


def resolve_backend(name: str = "auto") -> TextBackend:
    """Return the backend `builtin`, `torchtext`, or for `auto` torchtext if it loads and else the built-in one.

    Raises DataError for another name, and for `torchtext` if it does not load.
    """
    if name not in BACKENDS:
        raise DataError(f"text_backend: got {name!r}; expected one of {', '.join(BACKENDS)}")
    reason = "as requested"
    if name != "builtin":
        try:
            return _torchtext_backend()
        except ImportError:
            reason = "torchtext is not installed"
        except OSError:  # its compiled part fits one release of torch
            reason = "torchtext does not load with this torch"
        if name == "torchtext":
            raise DataError(
                f"text_backend torchtext: {reason}; create an environment from requirements-torchtext.txt, "
                "or set text_backend to auto or builtin"
            )
    note = f"text backend: built-in, with torchtext's basic_english rules and vocabulary order ({reason})"
    return TextBackend("builtin", note, basic_english, _build_builtin)
