# Cancels with curl as somebody who may, and as everybody who must not. Sourced by `run`.
#
# Prints one case a line, in JSON: the error's body, and the names of the answer's headers.
# shellcheck shell=bash

# shown TOKEN METHOD PATH: what comes of a request. No token is an empty one.
shown() {
  local who=()
  [[ -n $1 ]] && who=(--header "Authorization: Bearer $1")
  curl --silent --cacert "$ca" "${who[@]}" --request "$2" --dump-header "$work/headers" \
    --write-out '%{http_code}' --output "$work/body" "$AUTH_URL/v1/$3" >"$work/http"
  jq --compact-output --slurpfile http "$work/http" '
    if .error | not then "done" else .error as $e
    | ([$e.details[] | select(.["@type"] == "type.googleapis.com/google.rpc.ErrorInfo")] | first) as $info
    | {http: $http[0], code: $e.code, status: $e.status, message: $e.message} + ($info | del(.["@type"]))
    end' "$work/body"
}
cancel() { shown "$1" POST "${2:-$AUTH_OPERATION}:cancel"; }
# alike VERB METHOD THERE ABSENT
alike() {
  local there absent
  there="$(with_headers "$(shown "$may" "$2" "$3")")"
  absent="$(with_headers "$(shown "$may" "$2" "$4")")"
  told_alike "$1" "$there" "$absent"
}
with_headers() {
  jq --compact-output --arg headers "$(sed -n 's/:.*//p' "$work/headers" | sort | tr '\n' ' ')" '.headers = $headers' <<<"$1"
}

# curl_cases KIND: KIND is how the names of the tokens end.
curl_cases() {
  local may="${tokens[good$1]}"
  print "no token" "$(cancel '')"
  print "an expired token" "$(cancel "${tokens[expired$1]}")"
  print "another audience" "$(cancel "${tokens[audience$1]}")"
  print "alg none" "$(cancel "${tokens[none$1]}")"
  print "HMAC with the public key" "$(cancel "${tokens[hmac$1]}")"
  print "a token without the scope" "$(cancel "${tokens[scope$1]}")"
  print "without the permission" "$(cancel "${tokens[viewer]}")"
  print "another project's operation" "$(cancel "$may" "$AUTH_FOREIGN")"
  alike get GET "$AUTH_FOREIGN" "$AUTH_FOREIGN_ABSENT"
  alike cancel POST "$AUTH_FOREIGN:cancel" "$AUTH_FOREIGN_ABSENT:cancel"
  alike delete DELETE "$AUTH_FOREIGN" "$AUTH_FOREIGN_ABSENT"
  alike list GET "$AUTH_FOREIGN_PARENT/operations" "$AUTH_ABSENT_PARENT/operations"
  print "absent of one's own" "$(cancel "$may" "$AUTH_ABSENT")"
  print "permitted, a token" "$(cancel "$may" "$AUTH_BY_TOKEN")"
  print "permitted, an account's file" "$(cancel "$(longhaul auth token --key-file "$AUTH_FILE_ADMIN")" "$AUTH_BY_FILE")"
}
