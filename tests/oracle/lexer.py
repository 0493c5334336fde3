"""Pieces of ClickHouse SQL text: enough to change a query without being fooled by strings, comments and quoted names."""

import re

PIECE = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<comment>--[^\n]*|\#[! ][^\n]*|/\*.*?\*/)
  | (?P<string>'(?:[^'\\]|\\.|'')*')
  | (?P<quoted>`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*")
  | (?P<number>0[xX][0-9a-fA-F]+|(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)


class Piece:
    """A piece of text: `kind` is a group of PIECE."""

    __slots__ = ("kind", "text")

    def __init__(self, kind, text):
        self.kind, self.text = kind, text


def pieces(sql):
    """The pieces of a text, in order; put together they are the text again."""
    return [Piece(match.lastgroup, match.group()) for match in PIECE.finditer(sql)]


def meaningful(found, at, step):
    """The index of the next piece in a direction that is neither space nor comment, or None."""
    at += step
    while 0 <= at < len(found):
        if found[at].kind not in ("space", "comment"):
            return at
        at += step
    return None


def calls(found):
    """(index of the name, index of the opening parenthesis) of everything that looks like a call."""
    for at, piece in enumerate(found):
        if piece.kind == "word":
            after = meaningful(found, at, 1)
            if after is not None and found[after].text == "(":
                yield at, after


def closing(found, opening):
    """The index of the parenthesis that closes the one at `opening`, or None."""
    depth = 0
    for at in range(opening, len(found)):
        depth += {"(": 1, ")": -1}.get(found[at].text, 0) if found[at].kind == "sign" else 0
        if depth == 0:
            return at
    return None
