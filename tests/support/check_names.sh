#!/bin/sh
# check_names.sh ROOT: the repository speaks of itself alone. Says FILE:LINE where a file names a path or a host of one machine. Exit status 1 if there is one.
set -eu
cd "${1:?usage: check_names.sh ROOT}"

# An absolute path into a home, a checkout or a scratch folder; a private address; a host that only one site has.
before='(^|[^]A-Za-z0-9_.$})/*-])'
paths="$before/(work|root|home|Users|mnt|builds|workspace|var/tmp|tmp/[A-Za-z0-9])(/|[^A-Za-z0-9_.-]|\$)|$before/tmp/"
addresses='(^|[^0-9.])(10\.[0-9]+|192\.168|172\.(1[6-9]|2[0-9]|3[01]))\.[0-9]+\.[0-9]+([^0-9.]|$)'
hosts='https?://[^/ ]*(registry|mirror|artifactory|nexus|proxy|internal|intranet|localhost|corp\.|\.local[/: ])|(deb\.debian\.org|pypi\.org|registry\.npmjs|proxy\.golang)'

export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
if [ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$(pwd -P)" ]; then
  git ls-files --cached --others --exclude-standard
else
  find . \( -path ./build -o -path ./results -o -path ./.git \) -prune -o -type f -print | sed 's|^\./||'
fi | grep -v '^tests/support/check_names' | {
  status=0
  while IFS= read -r file; do
    # -I: not in binary files.
    [ ! -f "$file" ] || ! grep -nHIE "$paths|$addresses|$hosts" "$file" || status=1
  done
  [ $status -eq 0 ] || echo "check_names: a file names a path or a host that is not everybody's (above)"
  exit $status
}
