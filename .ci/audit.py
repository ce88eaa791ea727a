"""Fail if an installed package is known to be vulnerable or malicious.

Asks pip-audit, and always checks the versions recorded below, since the database cannot be reached from everywhere.
"""

import json
import subprocess
import sys
from importlib.metadata import distributions

# (distribution, version): advisory
RECORDED = {
    ("lightning", "2.6.2"): "GHSA-w37p-236h-pfx3: ships credential-stealing code",
    ("lightning", "2.6.3"): "GHSA-w37p-236h-pfx3: ships credential-stealing code",
}


def main() -> int:
    installed = {(d.metadata["Name"].lower(), d.version) for d in distributions()}
    found = [f"{name} {version}: {RECORDED[name, version]}" for name, version in sorted(installed & RECORDED.keys())]
    try:
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--format",
            "json",
            "--progress-spinner",
            "off",
            "--skip-editable",
        ]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        packages = json.loads(answer.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, json.JSONDecodeError, KeyError) as error:
        packages = []
        print(f"audit: no answer from pip-audit ({type(error).__name__})")
    looked_up = [p for p in packages if "vulns" in p]
    found += [f"{p['name']} {p['version']}: {v['id']}" for p in looked_up for v in p["vulns"]]
    print(
        f"audit: {len(installed)} packages; {len(looked_up)} looked up in the advisory database, "
        f"all of them against {len(RECORDED)} recorded advisories"
    )
    for line in found:
        print(f"audit: {line}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
