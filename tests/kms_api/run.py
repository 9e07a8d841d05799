"""Runs suites against the endpoint of the environment: `run.py [SUITE]...`, all by default.

Ends with a line of JSON that counts tests and client calls, and says what failed and why.
"""

import json
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import common  # noqa: E402


def main(names):
    suites = unittest.TestSuite()
    for name in names or sorted(path.stem for path in Path(__file__).parent.glob("test_*.py")):
        suites.addTests(unittest.defaultTestLoader.loadTestsFromName(name))
    result = unittest.TextTestRunner(verbosity=1).run(suites)
    failed = [(str(test), trace.strip().splitlines()[-1])
              for test, trace in result.failures + result.errors]
    print(json.dumps({"tests": result.testsRun, "failed": failed, "calls": common.CALLS}))
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
