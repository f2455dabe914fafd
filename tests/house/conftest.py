import sys
from pathlib import Path

# The helpers that read the package's source and the documents stand beside the tests.
sys.path.insert(0, str(Path(__file__).parent))
