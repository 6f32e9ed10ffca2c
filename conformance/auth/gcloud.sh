# Cancels with gcloud as somebody who may, and as everybody who must not. Sourced by `run`.
#
# Prints one case a line, in JSON: the exit code, and what gcloud writes of the error. It writes all of it,
# and after the message a sentence on the credential in use.
# shellcheck shell=bash

export CLOUDSDK_CONFIG="$auth/gcloud"
gcloud_out="$work/gcloud"

# shown_by_gcloud COMMAND..: what comes of a command, as its user sees it.
shown_by_gcloud() {
  local code=0
  gcloud gemini operations "$@" >"$gcloud_out" 2>&1 || code=$?
  ((code == 0)) && echo '"done"' && return
  jq --raw-input --slurp --compact-output --argjson exit "$code" '
    . as $all | (capture("ERROR: \\(gcloud[a-z.]+\\) (?<status>[A-Z_]+): (?<message>[^\n]*?) This command is (?<credential>[^\n]*)\n" +
      "- .@type.: type.googleapis.com/google.rpc.ErrorInfo\n  domain: (?<domain>[^\n]*)\n" +
      "  metadata:\n(?<metadata>(    [^\n]*\n)+)  reason: (?<reason>[A-Z_]+)")
    # It ends what had no full stop with one, and takes the last one away.
    | (if .credential | endswith(".") then . else .message |= rtrimstr(".") end) | del(.credential)
    | .metadata |= (rtrimstr("\n") | split("\n") | map(split(": ") | {key: .[0][4:], value: .[1]}) | from_entries))
    // {said: $all} | .exit = $exit' "$gcloud_out"
}
# by TOKEN COMMAND..: with that token, handed over in a file.
by() {
  local file="$work/gcloud-token-$1"
  echo "${tokens[$1]}" >"$file"
  shift
  CLOUDSDK_AUTH_ACCESS_TOKEN_FILE="$file" shown_by_gcloud "$@"
}
as_viewer() { CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE="$(file_of viewer)" shown_by_gcloud "$@"; }

gcloud_cases() {
  # In mode `jwt` there is nowhere to exchange an account's key for a token: it signs for itself.
  export CLOUDSDK_AUTH_SERVICE_ACCOUNT_USE_SELF_SIGNED_JWT=true
  local verb there="${foreign[cloudaicompanion]}" ours="$AUTH_OPERATION"
  print "no token" "$(CLOUDSDK_AUTH_DISABLE_CREDENTIALS=true shown_by_gcloud cancel "$ours")"
  print "an expired token" "$(by expired cancel "$ours")"
  print "another audience" "$(by audience cancel "$ours")"
  print "alg none" "$(by none cancel "$ours")"
  print "HMAC with the public key" "$(by hmac cancel "$ours")"
  print "a token without the scope" "$(by scope cancel "$ours")"
  print "without the permission" "$(as_viewer cancel "$ours")"
  print "another project's operation" "$(shown_by_gcloud cancel "$there")"
  for verb in describe:get wait:wait cancel:cancel delete:delete; do
    told_alike "${verb#*:}" "$(shown_by_gcloud "${verb%:*}" "$there")" "$(shown_by_gcloud "${verb%:*}" "${there%/*}/absent")"
  done
  told_alike list "$(shown_by_gcloud list --project="$other" --location="$location")" \
    "$(shown_by_gcloud list --project="$nowhere" --location="$location")"
  print "absent of one's own" "$(shown_by_gcloud cancel "${ours%/*}/absent")"
  # It sends what was refused with 401 a second time, with the same token.
  local sent
  sent="$(CLOUDSDK_CORE_LOG_HTTP=true by none cancel "$ours" >/dev/null; grep -c 'request start' "$gcloud_out")"
  jq --null-input --compact-output --arg sent "$sent" '{extra: "requests for a 401", shown: $sent}'
  print "permitted, a token" "$(by good cancel "$AUTH_BY_TOKEN")"
  print "permitted, an account's file" "$(shown_by_gcloud cancel "$AUTH_BY_FILE")"
}
