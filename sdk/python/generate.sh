#!/usr/bin/env bash
# Makes src/longhaul/v1/*_pb2.py again from proto/longhaul/v1. Usage: sdk/python/generate.sh [--check]
#
# With --check nothing is written; the exit code says whether the files are what they should be.
# The compiler's version is fixed, so that the same files come out everywhere; its major version of
# protobuf decides which runtimes can load them.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly compiler="grpcio-tools==1.76.0" setuptools="setuptools==80.9.0"
venv="${LONGHAUL_CACHE:-$here/.cache}/generate"

if [[ ! -x $venv/bin/python || "$(cat "$venv/compiler" 2>/dev/null)" != "$compiler" ]]; then
  rm -rf "$venv"
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "$compiler" "$setuptools"
  echo "$compiler" >"$venv/compiler"
fi
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
"$venv/bin/python" -m grpc_tools.protoc --proto_path="$here/../../proto" --python_out="$out" --pyi_out="$out" \
  longhaul/v1/workers.proto
for file in workers_pb2.py workers_pb2.pyi; do
  if [[ ${1:-} == --check ]]; then
    diff -u "$here/src/longhaul/v1/$file" "$out/longhaul/v1/$file" || { echo "run sdk/python/generate.sh"; exit 1; }
  else
    cp "$out/longhaul/v1/$file" "$here/src/longhaul/v1/$file"
  fi
done
