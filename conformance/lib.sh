# What the suites written in shell share. Sourced, never run.
#
# A suite is told LONGHAUL_PORT (a server of this machine) and LONGHAUL_CACHE (where clients are
# installed). Its last line is `N passed, N failed, N skipped`, printed by `finish` or `skip_suite`.
# shellcheck shell=bash

: "${LONGHAUL_PORT:?set it to the port of a running server, or use conformance/run}"
LONGHAUL_CACHE="${LONGHAUL_CACHE:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/.cache}"
url="http://127.0.0.1:$LONGHAUL_PORT"
passed=0 failed=0 skipped=0

# Ends the suite with one skipped: a tool is missing, or it was not asked for.
skip_suite() {
  echo "SKIPPED: $1"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
}

# One case that is left out: skip NAME WHY
skip() {
  skipped=$((skipped + 1))
  echo "SKIPPED: $1: $2"
}

# Ends the suite with one failed: what it needs should have been there.
fail_suite() {
  echo "not ok - $1"
  echo "0 passed, 1 failed, 0 skipped"
  exit 1
}

need() {
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || skip_suite "$tool is not installed"
  done
}

# Installs into $LONGHAUL_CACHE/NAME once for each content of FILE: installed NAME FILE COMMAND..
# The command gets the new folder as its last argument. Sets `clients` to the folder.
install_once() {
  local name="$1" file="$2" stamp log
  shift 2
  stamp="$(sha256sum "$file" | cut -c 1-16)"
  clients="$LONGHAUL_CACHE/$name-$stamp"
  [[ -e $clients/.complete ]] && return
  mkdir -p "$LONGHAUL_CACHE"
  log="$LONGHAUL_CACHE/$name.log"
  rm -rf "$clients"
  echo "   installing the clients of $(basename "$file")"
  if ! "$@" "$clients" >"$log" 2>&1; then
    tail -n 20 "$log"
    fail_suite "the clients cannot be installed"
  fi
  touch "$clients/.complete"
}

# One case: same NAME ACTUAL EXPECTED
same() {
  if [[ $2 == "$3" ]]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'not ok - %s\n     got: %s\n  wanted: %s\n' "$1" "${2:-(nothing)}" "$3"
  fi
}

# One case: matches NAME ACTUAL REGEX
matches() {
  if [[ $2 =~ $3 ]]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'not ok - %s\n     got: %s\n  wanted: %s\n' "$1" "${2:-(nothing)}" "$3"
  fi
}

finish() {
  echo "$passed passed, $failed failed, $skipped skipped"
  ((failed == 0))
  exit
}
