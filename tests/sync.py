"""Copy the text from the ALGO LOGIC line on from one script to the others: python tests/sync.py flexplore_goal.py"""

import sys
from pathlib import Path

from test_text import MARKER, SCRIPTS, algorithm

source = Path(sys.argv[1]).resolve()
for path in SCRIPTS:
    if path != source:
        text = path.read_text()
        path.write_text(text[: MARKER.search(text).start()] + algorithm(source))
