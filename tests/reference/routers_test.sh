#!/bin/sh
# routers_test.sh EPSIM FOLDER: what `epsim route` writes for random cases is what NumPy computes from the formulas. Exit status 77 without NumPy.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=
for candidate in python3 /usr/bin/python3; do
  if "$candidate" -c 'import numpy' 2>/dev/null; then python=$candidate && break; fi
done
[ -n "$python" ] || { echo "skipped: no Python with NumPy"; exit 77; }
rm -rf "$2"
mkdir -p "$2"
"$python" "$here/routers.py" "$1" "$2"
rm -rf "$2"
