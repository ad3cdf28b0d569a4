# SPDX-License-Identifier: Apache-2.0
"""The README's example works, and CI runs the README's command."""

import os
import re
import subprocess
import sys
import textwrap

from tests.meta import tree

#: Seconds that a program of the example may take.
TIMEOUT = 30.0


def _readme() -> str:
    return (tree.ROOT / 'README.rst').read_text()


def _program(name: str) -> str:
    found = re.search(
        rf'^``{re.escape(name)}``:\n\n\.\. code-block:: python\n\n'
        r'((?:    .*\n|\n)+)',
        _readme(),
        re.MULTILINE,
    )
    assert found, f'the README shows no {name}'
    return textwrap.dedent(found[1])


def test_the_example_works(tmp_path):
    for name in ('server.py', 'client.py'):
        (tmp_path / name).write_text(_program(name))
    environment = {
        **os.environ,
        'PYTHONWARNINGS': 'ignore',
        # A directory of its own, where no other server is found.
        'XDG_RUNTIME_DIR': str(tmp_path),
    }
    with subprocess.Popen(
        [sys.executable, 'server.py'],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout.readline().startswith('serving')
            client = subprocess.run(
                [sys.executable, 'client.py'],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                timeout=TIMEOUT,
            )
            server.communicate('\n', timeout=TIMEOUT)
        finally:
            server.kill()
    assert client.stdout == '5\n'
    assert server.returncode == 0


def test_the_example_is_short():
    assert len(_program('server.py').splitlines()) <= 20
    assert len(_program('client.py').splitlines()) <= 20


def test_ci_runs_the_command_of_the_readme():
    command = (tree.ROOT / '.ci' / 'run').read_text().splitlines()[-1]
    assert command.endswith('tox')
    assert f'\n    {command}\n' in _readme()


def test_the_documents_that_the_readme_names_exist():
    targets = re.findall(r'`[^`]+<([^>`]+)>`_', _readme())
    for target in targets:
        if '://' not in target:
            assert (tree.ROOT / target).exists(), target
    assert targets
