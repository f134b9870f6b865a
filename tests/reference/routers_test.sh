#!/bin/sh
# routers_test.sh EPSIM FOLDER: what `epsim route` writes for random cases is what NumPy computes from the formulas. Exit status 77 without NumPy.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/numpy.sh"
rm -rf "$2"
mkdir -p "$2"
"$python" "$here/routers.py" "$1" "$2"
rm -rf "$2"
