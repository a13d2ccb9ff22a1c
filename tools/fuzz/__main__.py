"""``python tools/fuzz``: see fuzz/run.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.run import main

if __name__ == "__main__":
    main()
