# SPDX-License-Identifier: Apache-2.0
"""Every rule of doc/specs has a test, and every citation a rule."""

import spec_coverage


def test_rules_and_tests_agree():
    coverage = spec_coverage.collect()
    assert coverage.defined
    problems = coverage.problems()
    assert not problems, '\n'.join(problems)


def test_a_rule_is_defined_where_its_id_begins_the_text():
    text = (
        '**PL-01** begins a paragraph.\n'
        '\n'
        '* **PL-02** begins an item, and mentions **PL-01**.\n'
        '#. **PL-03** is numbered.\n'
        '| **PL-04** | is in a table |\n'
        'See PL-05 and ``**PL-06**``.\n'
        'PL-07\n'
        '    is a term.\n'
        'PL-08\n'
        'is not.\n'
    )
    assert list(spec_coverage.definitions(text)) == [
        ('PL-01', 1),
        ('PL-02', 3),
        ('PL-03', 4),
        ('PL-04', 5),
        ('PL-07', 7),
    ]


def test_a_citation_is_found_wherever_the_mark_is_made():
    text = (
        'import pytest\n'
        "pytestmark = pytest.mark.spec('PL-01')\n"
        "@pytest.mark.spec('PL-02', 'PL-03')\n"
        'def test(): pass\n'
        "CASES = [pytest.param(1, marks=pytest.mark.spec('PL-04'))]\n"
    )
    assert sorted(rule for rule, _ in spec_coverage.citations(text)) == [
        'PL-01',
        'PL-02',
        'PL-03',
        'PL-04',
    ]


def test_every_disagreement_is_a_problem():
    def place(line):
        return spec_coverage.Place(spec_coverage.ROOT / 'x.rst', line)

    coverage = spec_coverage.Coverage(
        defined={
            'PL-01': [place(1)],
            'PL-02': [place(2), place(3)],
            'PL-03': [place(4)],
        },
        cited={
            'PL-02': [place(5)],
            'PL-03': [place(6)],
            'PL-04': [place(7)],
        },
    )
    assert coverage.problems() == [
        'x.rst:3: PL-02 is defined at x.rst:2 already',
        'x.rst:1: PL-01 has no test',
        'x.rst:7: cites PL-04, which no spec defines',
    ]
