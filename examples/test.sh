#!/usr/bin/env bash
# Runs the examples against a server of its own. Usage: examples/test.sh
#
# Takes LONGHAUL_BIN, else target/release/longhaul, else target/debug/longhaul. The last line is always
# `N passed, N failed, N skipped`; the exit code is 0 only when nothing failed.
set -uo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# How long anything here may take before it counts as failed.
readonly here patience=20
passed=0 failed=0 server="" worker="" worker_says="" folder=""

skip_all() { echo "SKIPPED: $1"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
check() { # check NAME COMMAND..
  local name="$1"
  shift
  if "$@"; then
    passed=$((passed + 1)) && echo "ok - $name"
  else
    failed=$((failed + 1)) && echo "not ok - $name"
  fi
}

clean_up() {
  [[ -z $worker ]] || kill -KILL "$worker" 2>/dev/null
  [[ -z $server ]] || { kill -TERM "$server" && wait "$server"; } 2>/dev/null
  [[ -z $folder ]] || rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

find_server() {
  local each
  for each in "${LONGHAUL_BIN:-}" "$here/../target/release/longhaul" "$here/../target/debug/longhaul"; do
    [[ -n $each && -x $each ]] && { echo "$each"; return; }
  done
  return 1
}

start_server() {
  local until=$((SECONDS + patience))
  printf '%s\n' 'listen = "127.0.0.1:0"' '[auth]' 'mode = "off"' >"$folder/longhaul.toml"
  "$binary" serve -c "$folder/longhaul.toml" --port-file "$folder/port" </dev/null >"$folder/log" 2>&1 &
  server=$!
  until [[ -s $folder/port ]]; do
    kill -0 "$server" 2>/dev/null && ((SECONDS < until)) || { cat "$folder/log"; return 1; }
    sleep 0.05
  done
  url="http://127.0.0.1:$(<"$folder/port")"
}

# A worker whose lines can be waited for. Steps of a minute never end by themselves.
start_worker() {
  mkfifo "$folder/says"
  STEP_SECONDS="$1" "$here/worker.sh" "$url" >"$folder/says" 2>"$folder/errors" </dev/null &
  worker=$!
  exec {worker_says}<"$folder/says"
  rm "$folder/says"
}
# Waits for the worker's next line: says LINE
says() {
  local line=""
  IFS= read -r -t "$patience" -u "$worker_says" line || echo "  the worker said nothing more"
  [[ $line == "$1" ]] || { echo "  wanted: $1"; echo "  got:    $line"; cat "$folder/errors"; return 1; }
}
stop_worker() {
  kill -TERM "$worker" && wait "$worker" && says_nothing_more
  local code=$?
  exec {worker_says}<&-
  worker=""
  return "$code"
}
says_nothing_more() { # its end of the pipe is closed when nobody of its processes is left
  local line=""
  IFS= read -r -t "$patience" -u "$worker_says" line
  (($? == 1)) && [[ -z $line ]]
}

start() { # starts an operation and prints its name
  curl -sSf -d '{}' "$url/clouddeploy/v1/projects/p/locations/l/deliveryPipelines?deliveryPipelineId=$1" |
    grep -oE '"name": *"[^"]*"' | head -n 1 | cut -d '"' -f 4
}
cancel() { curl -sSf -d '{}' -o "$folder/cancelled" "$url/clouddeploy/v1/$1:cancel"; }
shows() { # shows NAME REGEX..: what the API says about the operation fits each
  local got regex
  got="$(curl -sSf "$url/clouddeploy/v1/$1" | tr -d ' \n')"
  shift
  for regex in "$@"; do
    [[ $got =~ $regex ]] || { echo "  wanted: $regex"; echo "  got:    $got"; return 1; }
  done
}
unfinished() { shows "$1" '"verb":"create"' && ! shows "$1" '"done":true' >/dev/null; }
microseconds() { echo $((${EPOCHREALTIME/[.,]/})); }

((BASH_VERSINFO[0] >= 5)) || skip_all "this needs bash 5"
command -v curl >/dev/null || skip_all "curl is not installed"
binary="$(find_server)" || skip_all "there is no longhaul binary; run cargo build, or set LONGHAUL_BIN"
folder="$(mktemp -d)"
start_server || { echo "not ok - the server starts"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }

start_worker 60
name="$(start to-cancel)"
check "a worker in bash takes an operation" says "started $name"
began="$(microseconds)"
cancel "$name"
check "it hears a cancel" says "heard $name"
took=$((($(microseconds) - began) / 1000))
check "within a second: it took $took ms" test "$took" -lt 1000
check "it reports that it stopped" says "ended $name"
check "the operation ended with code 1" shows "$name" '"done":true' '"error":\{"code":1,' '"requestedCancellation":true'

name="$(start to-give-back)"
check "it takes the next operation" says "started $name"
check "it ends when told, and leaves no process behind" stop_worker
check "the operation is not done" unfinished "$name"
start_worker 0
check "another worker goes on at once" says "started $name"
check "it does the work" says "ended $name"
check "the operation has its response" shows "$name" '"done":true' \
  '"response":\{"@type":"type.googleapis.com/google.cloud.deploy.v1.DeliveryPipeline",' '"name":"projects/p/locations/l/deliveryPipelines/to-give-back"'
check "a worker without work ends when told" stop_worker

echo "$passed passed, $failed failed, 0 skipped"
((failed == 0))
