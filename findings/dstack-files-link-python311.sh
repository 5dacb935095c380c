#!/usr/bin/env bash
# dstack 0.22.5 cannot pack a folder of `files:` that has a link inside, on Python 3.10 and 3.11.
#
# Seen on 2026-11-29 with dstack 0.22.5 from PyPI, on Linux. The folder has two entries: data/real.txt, and the link
# data/latest.txt with the target real.txt.
#
#   Python 3.11.7   TypeError: PurePath.relative_to() got an unexpected keyword argument 'walk_up'
#   Python 3.12.1   an archive with data, data/latest.txt (a link to real.txt) and data/real.txt
#
# Without the link, both versions make the archive. Guess before the run: the same archive on every version of Python that
# the release allows; its metadata asks for Python 3.10 or later. What it means for users: `dstack apply` with
# `files: [data]` ends with an error before anything is uploaded, whatever the server. The argument walk_up of
# PurePath.relative_to exists since Python 3.12. Links that lead out of the folder are packed as files, and work.
#
# It needs bash, PyPI (about 150 MB), and Python 3.10 or 3.11 with venv. It fails if any of this is different now.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=
for candidate in python3.11 python3.10; do
	"$candidate" -c 'import venv, ensurepip' 2>/dev/null && python=$candidate && break
done
[ -n "$python" ] || { echo "no Python 3.10 or 3.11 with venv"; exit 1; }
"$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check dstack==0.22.5

mkdir "$folder/plain" "$folder/data"
echo text | tee "$folder/plain/real.txt" >"$folder/data/real.txt"
ln -s real.txt "$folder/data/latest.txt"

cat >"$folder/run.py" <<'PYTHON'
import io, sys, tarfile
from importlib.metadata import metadata, version

from dstack._internal.utils.files import create_file_archive


def pack(path):
    """Return the names in the archive that the client would upload, or the error."""
    file = io.BytesIO()
    try:
        create_file_archive(path, file)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    file.seek(0)
    return sorted(member.name for member in tarfile.open(fileobj=file))


print("dstack", version("dstack"), "requires Python", metadata("dstack")["Requires-Python"], "and runs on", sys.version.split()[0])
plain, linked = pack(sys.argv[1] + "/plain"), pack(sys.argv[1] + "/data")
print("without a link:", plain)
print("with a link:   ", linked)
same = metadata("dstack")["Requires-Python"] == ">=3.10" and plain == ["plain", "plain/real.txt"]
sys.exit(0 if same and "TypeError" in linked and "walk_up" in linked else "this is different now")
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder"
