# SPDX-License-Identifier: Apache-2.0
"""What is allowed under each fault: the table of the specification."""

import csv
import dataclasses
import functools
import pathlib
import re

TABLE = pathlib.Path(__file__).parents[2] / 'doc/specs/fault-outcomes.csv'

PATTERNS = ('call', 'cast', 'fanout', 'notification')

#: Words of a cell that are no error's name.
OK = 'ok'
GONE = 'gone'
AGAIN = 'again'
COPIES = 'copies'

_ERROR = re.compile(r'([A-Z]\w+) ([0-9.]+)')


@dataclasses.dataclass(frozen=True)
class Cell:
    """What the callers of one pattern may be told under one fault."""

    fault: str
    pattern: str
    #: The errors that are allowed, and within how many seconds.
    errors: dict[str, float]
    #: Messages may be lost with a server that was killed just after it
    #: acknowledged them.
    gone: bool = False
    #: A message may run again at another server, after the first was lost.
    again: bool = False
    #: Copies may fail, if they are counted.
    copies: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """A fault, the kinds of site it is proved on, and its cells."""

    fault: str
    sites: tuple[str, ...]
    cells: dict[str, Cell]


def parse_cell(fault, pattern, text):
    errors = {}
    words = set()
    for part in map(str.strip, text.split(',')):
        match = _ERROR.fullmatch(part)
        if match:
            errors[match[1]] = float(match[2])
        elif part in (OK, GONE, AGAIN, COPIES):
            words.add(part)
        else:
            raise ValueError(f'{fault}, {pattern}: {part!r} says nothing')
    return Cell(
        fault, pattern, errors, GONE in words, AGAIN in words, COPIES in words
    )


def parse(text):
    """Return the rows of the table, by fault; the first line is a heading."""
    rows = {}
    lines = csv.reader(text.splitlines()[1:], skipinitialspace=True)
    for fields in lines:
        fault, sites, *cells = fields
        if fault in rows:
            raise ValueError(f'{fault} is twice in the table')
        rows[fault] = Row(
            fault,
            tuple(sites.split()),
            {
                pattern: parse_cell(fault, pattern, cell)
                for pattern, cell in zip(PATTERNS, cells, strict=True)
            },
        )
    return rows


@functools.cache
def rows():
    return parse(TABLE.read_text())
