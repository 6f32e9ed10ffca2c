#!/usr/bin/env bash
# A worker for Longhaul in bash and curl: it takes Cloud Deploy's new delivery pipelines, works on one
# after the other in steps, and stops within a moment when somebody cancels.
# Needs bash 4.3 or later, and curl. Usage: examples/worker.sh [URL]
# LONGHAUL_TOKEN_FILE holds a bearer token, CURL_CA_BUNDLE the server's authority, where it asks for them.
set -uo pipefail -m # -m: each background command is a process group, to be ended as a whole
leases="${1:-http://127.0.0.1:7151}/longhaul/v1/leases" me="${HOSTNAME:-bash}/$$" claims=0 name=""
answer="$(mktemp)"

# One call: post VERB SECONDS BODY. While the server is away it is repeated for some seconds.
who() { [[ -z ${LONGHAUL_TOKEN_FILE:-} ]] || echo "header = \"Authorization: Bearer $(<"$LONGHAUL_TOKEN_FILE")\""; }
post() { curl -sSf -K <(who) -m "$2" --retry 9 --retry-connrefused --retry-max-time 10 -d "$3" "$leases:$1"; }
# The same claimId brings the same answer, so that an answer lost on the way is no work lost.
claim() { post claim 60 '{"worker":"'"$me"'","claimId":"'"$me/$claims"'","wait":"'"$1"'","lease":"30s",
  "methods":["google.cloud.deploy.v1.CloudDeploy.CreateDeliveryPipeline"]}' >"$answer"; }
report() { post report 8 '{"worker":"'"$me"'","wait":"'"$1"'","items":[{"operation":"'"$name"'","epoch":"'"$epoch"'",
  "lease":"30s"'"${2:-}"'}]}'; }
field() { grep -oE "\"$1\": *\"[^\"]*\"" "$answer" | head -n 1 | cut -d '"' -f 4; }
take() { name="$(field operation)" epoch="$(field epoch)" target="$(field target)" claims=$((claims + 1)); }

# The work: ten steps, each of which says how far it is.
work() { for step in {1..10}; do
  sleep "${STEP_SECONDS:-1}" && report 0s ',"progress":{"step":'"$step"',"steps":10}' >/dev/null; done; }
# Hangs at the server until the work is not wanted any more, then ends it. No answer: the lease is ending.
hear() { while report 5s >"$answer" || echo '"action":"STOP"' >"$answer"; [[ $(field action) == CONTINUE ]]; do :; done
  kill -TERM -- "-$work"; }
end_group() { { kill -TERM -- "-$1" && wait "$1"; } 2>/dev/null; }
leave() { # gives back what it holds, or what an unfinished claim may have brought
  for job in $(jobs -p); do end_group "$job"; done
  [[ -n $name ]] || { claim 0s && take; }
  [[ -z $name ]] || report 0s ',"release":{}' >/dev/null; rm -f "$answer"; exit 0; }
trap leave TERM INT

while true; do
  claim 50s & wait "$!" || { sleep 1; continue; }
  take; [[ -n $name ]] || continue
  work & work=$!; hear & hearing=$!
  echo "started $name"
  wait "$work" 2>/dev/null; code=$?; end_group "$hearing"; wanted="$(field action)"
  case "$code $wanted" in
    "0 "*) end='"response":{"@type":"type.googleapis.com/google.cloud.deploy.v1.DeliveryPipeline","name":"'"$target"'"}' ;;
    *CANCEL) end='"stopped":{"effects":"NONE","message":"stopped between two steps"}'; echo "heard $name" ;;
    *STOP) echo "lost $name"; name=""; continue ;;
    *) end='"failure":{"code":13,"message":"step failed","retryable":true}' ;;
  esac
  report 0s ",$end" >"$answer" && echo "ended $name"; name=""
done
