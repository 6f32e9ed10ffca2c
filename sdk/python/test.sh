#!/usr/bin/env bash
# Tests the Python SDK against a real server. Usage: sdk/python/test.sh [PYTEST ARGUMENT..]
#
# Takes LONGHAUL_BIN, else target/release/longhaul, else target/debug/longhaul; PYTHON chooses the
# interpreter. Installs into sdk/python/.cache (or $LONGHAUL_CACHE/sdk-python) once. The last line is
# always `N passed, N failed, N skipped`; the exit code is 0 only when nothing failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
python="${PYTHON:-python3}"
cache="${LONGHAUL_CACHE:+$LONGHAUL_CACHE/sdk-python}"
cache="${cache:-$PWD/.cache}"
passed=0 failed=0 skipped=0

skip_all() { echo "SKIPPED: $1"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
# A step without numbers of its own counts as one test.
check() {
  local name="$1"
  shift
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "not ok - $name" && tail -n 40 "$log"
  fi
}

"$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null ||
  skip_all "$python is not Python 3.9 or later with its venv module"
mkdir -p "$cache" && log="$cache/log"
stamp="$("$python" -V | tr ' ' -)-$(sha256sum pyproject.toml | cut -c 1-16)"
venv="$cache/venv-$stamp"
if [[ ! -e $venv/.complete ]]; then
  rm -rf "$venv"
  "$python" -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check --editable '.[test]' >"$log" 2>&1 || {
    tail -n 20 "$log"
    echo "not ok - the SDK can be installed"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
  }
  touch "$venv/.complete"
fi

export PYTHONDONTWRITEBYTECODE=1
check "the generated messages are those of proto/" env LONGHAUL_CACHE="$cache" PYTHON="$python" ./generate.sh --check
check "types" "$venv/bin/mypy" --cache-dir "$cache/mypy"
"$venv/bin/python" -m pytest -p no:cacheprovider --quiet --tb=short --no-header "$@" 2>&1 | tee "$log"
code=${PIPESTATUS[0]}
number() { grep -oE "[0-9]+ $1" <<<"$(tail -n 1 "$log")" | grep -oE '[0-9]+' || echo 0; }
passed=$((passed + $(number passed))) skipped=$((skipped + $(number skipped)))
failed=$((failed + $(number failed) + $(number error)))
((code == 0 || failed > 0)) || failed=1
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
