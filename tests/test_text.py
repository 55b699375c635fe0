"""The four scripts are one text, and their inline metadata is requirements.txt."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(ROOT.glob("flexplore_*.py"))
MARKER = re.compile(r"^# =+ ALGO LOGIC$", re.M)


def algorithm(path):
    """The text from the ALGO LOGIC line on."""
    text = path.read_text()
    return text[MARKER.search(text).start() :]


def args_fields(path):
    """The fields of Args without their types and defaults: names and docstrings."""
    text = path.read_text()
    body = text[text.index("class Args:") : text.index("# ====", text.index("class Args:"))]
    return re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""$', body, re.M | re.S)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_one_text(path):
    """The algorithm, the imports and, but for the environments' own, the flags; requirements.txt has all it needs."""
    here, there = algorithm(path).splitlines(), algorithm(SCRIPTS[0]).splitlines()
    assert len(SCRIPTS) == 4 and here == there, "run `python tests/sync.py flexplore_<the edited one>.py`"
    fields = [[field for field in args_fields(p) if field[0] not in ("env_source", "n")] for p in (path, SCRIPTS[-1])]
    assert fields[0] == fields[1] and len(fields[0]) > 30
    imports = [re.findall(r"^(?:import|from) .*", p.read_text(), re.M) for p in (path, SCRIPTS[0])]
    assert imports[0] == imports[1]
    inline = re.search(r"^# dependencies = \[(.*)\]$", path.read_text(), re.M)[1]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert re.findall(r'"(.*?)"', inline) == [line for line in lines if line and not line.startswith("#")]
    packages = {re.findall(r"\w+", line)[1] for line in imports[0]}
    assert packages - sys.stdlib_module_names <= {*re.findall(r"^\w+", "\n".join(lines), re.M)}
