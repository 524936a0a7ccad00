"""Check that a wheel holds every file of data and types that the packages read at run time."""

import sys
import zipfile
from pathlib import Path

PACKAGES = ("coin_protocol", "provider_sdk", "verifier_sdk")
wheel = zipfile.ZipFile(sys.argv[1])
found = set(wheel.namelist())
wanted = {
    str(path)
    for package in PACKAGES
    for path in Path(package).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}
missing = sorted(wanted - found)
stray = sorted(name for name in found if not name.startswith((*PACKAGES, "coin_audit-")))
if missing or stray:
    sys.exit(f"missing from the wheel: {missing}\nnot ours: {stray}")
sys.stdout.write(f"{len(wanted)} files, all there\n")
