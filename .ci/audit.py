"""Known vulnerabilities of what is installed, by pip-audit; skipped, with a word, where its data cannot be reached.

python .ci/audit.py

By itself pip-audit says "No known vulnerabilities found" where it found no package to ask about, as behind a mirror
that has no advisories; so what it looked at is counted here. The exit status is 1 if it knows of any.
"""

import json
import subprocess
import sys
from typing import Any


def verdict(output: str, errors: str) -> tuple[str, int]:
    """What pip-audit's JSON and its standard error come to: what to print, and the exit status."""
    try:
        packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError):
        said = errors.strip().splitlines() or ["it said nothing"]
        return f"pip-audit: skipped: {said[-1]}", 0
    asked = [package for package in packages if "vulns" in package]
    if not asked:
        return f"pip-audit: skipped: no advisories could be reached for any of {len(packages)} packages", 0
    lines = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, "
        f"mended in {', '.join(vulnerability['fix_versions']) or 'no release yet'}"
        for package in asked
        for vulnerability in package["vulns"]
    ]
    lines.append(f"pip-audit: {len(lines) or 'no'} known vulnerabilities in {len(asked)} of {len(packages)} packages")
    return "\n".join(lines), int(len(lines) > 1)


def main() -> None:
    """The command line."""
    command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off", "--skip-editable"]
    done = subprocess.run([*command, "--timeout=10"], capture_output=True, text=True, check=False)
    text, status = verdict(done.stdout, done.stderr)
    print(text)
    sys.exit(status)


if __name__ == "__main__":
    main()
