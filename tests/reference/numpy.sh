# To be read by other scripts: `python` is one with NumPy. Exit status 77 where there is none.
python=
for candidate in python3 /usr/bin/python3; do
  if "$candidate" -c 'import numpy' 2>/dev/null; then python=$candidate && break; fi
done
[ -n "$python" ] || { echo "skipped: no Python with NumPy"; exit 77; }
