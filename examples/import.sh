#!/usr/bin/env bash
# Work for a command worker: counts to ten, slowly, and can be stopped and resumed.
#   longhaul dev --no-practice &
#   longhaul worker --api clouddeploy --method CreateDeliveryPipeline -- examples/import.sh
set -euo pipefail
checkpoint="$LONGHAUL_CHECKPOINT_DIR/checkpoint" steps=10 at=0 work=""
[[ ! -e $checkpoint ]] || at="$(<"$checkpoint")" # where the last attempt was

stop() { # SIGTERM: a client cancelled, or the worker is to end
  [[ -z $work ]] || kill "$work" 2>/dev/null || true
  echo "::effects $( ((at == 0)) && echo none || echo partial)" >&3
  exit 143
}
trap stop TERM

echo "$LONGHAUL_OPERATION, attempt $LONGHAUL_ATTEMPT, from step $((at + 1))" >&2
while ((at < steps)); do
  sleep "${STEP_SECONDS:-1}" & work=$! # in the background, so that the trap need not wait for it
  wait "$work"
  at=$((at + 1))
  echo "$at" >"$checkpoint.new" && mv "$checkpoint.new" "$checkpoint"
  echo "step $at/$steps importing" >&3
done
# Nothing on standard output: the response is made of the request.
