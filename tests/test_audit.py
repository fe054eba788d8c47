import json
import runpy
from pathlib import Path

import pytest

verdict = runpy.run_path(str(Path(__file__).parents[1] / ".ci/audit.py"))["verdict"]
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found"}
WELL = {"name": "numpy", "version": "2.3", "vulns": []}
ILL = {"name": "jinja2", "version": "3.1.0", "vulns": [{"id": "CVE-2024-22195", "fix_versions": ["3.1.3"]}]}


@pytest.mark.parametrize(
    ("packages", "errors", "text", "status"),
    [
        ([WELL, UNKNOWN], "", "pip-audit: no known vulnerabilities in 1 of 2 packages", 0),
        ([WELL, ILL], "", "jinja2 3.1.0: CVE-2024-22195, mended in 3.1.3\npip-audit: 1 known", 1),
        # pip-audit itself says "No known vulnerabilities found" here.
        ([UNKNOWN], "", "pip-audit: skipped: no advisories could be reached for any of 1 packages", 0),
        (None, "ERROR: a\nERROR: Connection refused\n", "pip-audit: skipped: ERROR: Connection refused", 0),
    ],
)
def test_what_was_not_looked_at_does_not_count_as_sound(packages, errors, text, status):
    output = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    said, code = verdict(output, errors)
    assert said.startswith(text)
    assert code == status
