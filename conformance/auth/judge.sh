# What each client must show of each refusal, and the table of what they did.
#
# Sourced by `run`, never run. Clients print one case a line, in JSON: {"case", "shown"} and, where two
# answers must be alike, {"absent"}.
# shellcheck shell=bash

readonly cases=(
  "no token" "an expired token" "another audience" "alg none" "HMAC with the public key"
  "a token without the scope" "without the permission" "another project's operation"
  "hidden: get" "hidden: list" "hidden: wait" "hidden: cancel" "hidden: delete" "absent of one's own"
  "permitted, a token" "permitted, an account's file"
)
columns=()
declare -A cells

# Google's answer to each refusal, and how each client shows it. Takes $case, $api, $url, $operation, $client.
# The Python client puts verb and URL before what it was told, and Node's, over gRPC, the code.
readonly wanted='
  def expected: "Expected OAuth 2 access token, login cookie or other valid authentication credential. " +
    "See https://developers.google.com/identity/sign-in/web/devconsole-project.";
  def shared($http; $reason; $message): {http: $http, reason: $reason, domain: "googleapis.com",
    metadata: {method: "google.longrunning.Operations.CancelOperation", service: "\($api).googleapis.com"},
    message: $message};
  def invalid($reason): shared(401; $reason; "Request had invalid authentication credentials. " + expected);
  def denied: "\($api).operations.cancel" as $permission | {http: 403, reason: "IAM_PERMISSION_DENIED",
    domain: "\($api).googleapis.com", metadata: {permission: $permission, resource: $operation}, message:
    "Permission \u0027\($permission)\u0027 denied on resource \u0027//\($api).googleapis.com/\($operation)\u0027 (or it may not exist)."};
  {
    "no token": shared(401; "CREDENTIALS_MISSING"; "Request is missing required authentication credential. " + expected),
    "an expired token": invalid("ACCESS_TOKEN_EXPIRED"),
    "another audience": invalid("ACCESS_TOKEN_TYPE_UNSUPPORTED"),
    "alg none": invalid("ACCESS_TOKEN_TYPE_UNSUPPORTED"),
    "HMAC with the public key": invalid("ACCESS_TOKEN_TYPE_UNSUPPORTED"),
    "a token without the scope": shared(403; "ACCESS_TOKEN_SCOPE_INSUFFICIENT"; "Request had insufficient authentication scopes."),
    "without the permission": denied,
    "another project\u0027s operation": denied,
    "absent of one\u0027s own": {http: 404, reason: "OPERATION_NOT_FOUND", domain: "\($api).googleapis.com",
      metadata: {operation: $operation},
      message: "operation \"\($operation)\" does not exist; it may have been deleted or have expired"}
  }[$case]
  | {"401": "UNAUTHENTICATED", "403": "PERMISSION_DENIED", "404": "NOT_FOUND"}["\(.http)"] as $status
  | {UNAUTHENTICATED: 16, PERMISSION_DENIED: 7, NOT_FOUND: 5}[$status] as $code
  | {reason, domain, metadata, message} + {
      curl: {http, code: .http, status: $status}, "curl own": {http, code: .http, status: $status},
      gcloud: {exit: 1, status: $status},
      "Python REST": {code: .http, class: {"401": "Unauthorized", "403": "Forbidden", "404": "NotFound"}["\(.http)"],
        message: "POST \($url)/v1/\($operation):cancel: \(.message)"},
      "Python gRPC": {code: .http, class: {"401": "Unauthenticated", "403": "PermissionDenied", "404": "NotFound"}["\(.http)"]},
      "Node REST": {class: "GoogleError", code: $code},
      "Node gRPC": {class: "Error", code: $code, message: "\($code) \($status): \(.message)"},
      Rust: {class: "Error", http, code: $status}
    }[$client]'

# For clients in shell. print CASE SHOWN, told_alike VERB THERE ABSENT: one line.
print() { jq --null-input --compact-output --arg case "$1" --argjson shown "$2" '{case: $case, shown: $shown}'; }
told_alike() {
  jq --null-input --compact-output --arg case "hidden: $1" --argjson there "$2" --argjson absent "$3" \
    '{case: $case, shown: $there, absent: $absent}'
}

# judge CLIENT CASE GOT WANTED: one case, and its cell of the table.
judge() {
  local before=$failed
  same "$1: $2" "$3" "$4"
  ((failed == before)) && [[ ${cells[$1/$2]:-ok} == ok ]] && cells[$1/$2]=ok || cells[$1/$2]=FAILED
}

# compare CLIENT API OPERATION: judges what a client printed to $work/cases-CLIENT, and that it said all it had to.
compare() {
  local client="$1" file="$work/cases-$1" line case name want
  columns+=("$client")
  while IFS= read -r line; do
    case="$(jq --raw-output .case <<<"$line")"
    name="$3"
    [[ $case == another* ]] && [[ $case == *operation ]] && name="${foreign[$2]}"
    [[ $case == absent* ]] && name="${3%/*}/absent"
    case "$case" in
      permitted*) judge "$client" "$case" "$(jq --raw-output .shown <<<"$line")" "done" ;;
      hidden:*) hidden "$client" "$case" "$line" "${foreign[$2]##*/}" ;;
      *)
        want="$(jq --null-input --sort-keys --compact-output --arg case "$case" --arg api "$2" \
          --arg url "$base/clouddeploy" --arg operation "$name" --arg client "$client" "$wanted")"
        judge "$client" "$case" "$(jq --sort-keys --compact-output .shown <<<"$line")" "$want"
        ;;
    esac
  done < <(jq --compact-output 'select(.extra | not)' "$file")
  for case in "${cases[@]}"; do
    [[ -n ${cells[$client/$case]:-} ]] && continue
    # Neither curl, over HTTP, nor the Rust client has a call to wait.
    if [[ $case == "hidden: wait" && ($client == curl* || $client == Rust) ]]; then
      cells[$client/$case]="-"
    else
      judge "$client" "$case" "$(tail -n 3 "$work/errors-$client" 2>/dev/null)" "an answer"
    fi
  done
}
# hidden CLIENT CASE LINE ID: what is there and what is not are told alike, and as denied.
hidden() {
  local there absent
  there="$(jq --sort-keys --compact-output .shown <<<"$3")" absent="$(jq --sort-keys --compact-output .absent <<<"$3")"
  judge "$1" "$2" "$(jq --raw-output '.shown.reason? // .shown' <<<"$3")" IAM_PERMISSION_DENIED
  judge "$1" "$2" "${there//$4/absent}" "${absent//$nowhere/$other}"
}
# leave_out CLIENT WHY: says loudly that a client was not there.
leave_out() {
  local case
  columns+=("$1")
  for case in "${cases[@]}"; do cells[$1/$case]=skipped; done
  skip "$1" "$2"
}

# answer_to CASE: Google's answer, in short.
answer_to() {
  case "$1" in
    hidden:*) echo "403, whether it is there or not" ;;
    permitted*) echo "200, and it ends with code 1" ;;
    *) jq --null-input --raw-output --arg case "$1" --arg api '' --arg url '' --arg operation '' --arg client curl \
      "$wanted | \"\(.http) \(.reason)\"" ;;
  esac
}

print_table() {
  local case client
  printf '\n%-30s%-36s' "a cancel with" "is told"
  printf '%-13s' "${columns[@]}"
  for case in "${cases[@]}"; do
    printf '\n%-30s%-36s' "$case" "$(answer_to "$case")"
    for client in "${columns[@]}"; do printf '%-13s' "${cells[$client/$case]}"; done
  done
  printf '\n\n'
}
