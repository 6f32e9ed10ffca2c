# What the suite of access control stands on: accounts, an issuer, their tokens, and a server that knows them.
#
# Sourced by `run`, never run. Owns the folder $work, the server's process, and every credential.
# shellcheck shell=bash

readonly project=auth-project other=other-project nowhere=no-such-project location=us-central1
readonly issuer=https://accounts.example.com person=ann@example.com
readonly cloud_platform=https://www.googleapis.com/auth/cloud-platform
readonly ready_seconds=20
work="$(mktemp -d)" server="" now="$(date +%s)"
end() {
  stop
  rm -rf "$work"
}
trap end EXIT
unset LONGHAUL_TOKEN LONGHAUL_TOKEN_FILE LONGHAUL_CA_FILE LONGHAUL_AUTH_DIR LONGHAUL_SERVER

# The accounts' files name the server's port, so the ports are chosen before the server starts. They lie below
# those that a system gives to whoever asks for any, so nobody gets one of them in between by chance.
free_port() {
  local port
  while port=$((20000 + RANDOM % 12000)) && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}
port="$(free_port)"
while deploy_port="$(free_port)" && [[ $deploy_port == "$port" ]]; do :; done
base="https://localhost:$port" auth="$work/auth" ca="$work/tls/ca.pem"
longhaul() { "$LONGHAUL_BIN" "$@"; }
file_of() { echo "$auth/service-account${1:+-$1}.json"; }
email_of() { jq --raw-output .client_email "$(file_of "$1")"; }

# An authority, four accounts, and an issuer elsewhere, which is only a key here: it has published its
# public half, and whoever calls has got tokens from it.
make_identities() {
  longhaul tls init --dir "$work/tls" &&
    longhaul auth init --dir "$auth" --project "$project" --server "$base" --ca "$ca" &&
    longhaul auth account viewer --dir "$auth" && longhaul auth account stranger --dir "$auth" &&
    longhaul auth account issuer --dir "$auth" || return 1
  local of_issuer
  of_issuer="$(email_of issuer)"
  jq --arg issuer "$of_issuer" '{accounts: [.accounts[] | select(.client_email != $issuer)
    | {email: .client_email, keys}]}' "$auth/server.json" >"$work/accounts.json"
  # One is registered as by hand: by a name of somebody's choice, with the public half in PEM.
  local stranger public
  stranger="$(file_of stranger)"
  public="$(jq --raw-output .private_key "$stranger" | openssl rsa -pubout 2>/dev/null)"
  jq '.private_key_id = "by-hand"' "$stranger" >"$work/stranger.json" && mv "$work/stranger.json" "$stranger"
  jq --arg email "$(email_of stranger)" --arg public "$public" '
    (.accounts[] | select(.email == $email)) |= {email, public_keys: {"by-hand": $public}}' \
    "$work/accounts.json" >"$work/by-hand.json" && mv "$work/by-hand.json" "$work/accounts.json"
  jq --arg issuer "$of_issuer" '{keys: [.accounts[] | select(.client_email == $issuer) | .keys[]]}' \
    "$auth/server.json" >"$work/jwks.json"
  jq --arg viewer "serviceAccount:$(email_of viewer)" --arg stranger "serviceAccount:$(email_of stranger)" \
    --arg person "user:$person" --arg project "projects/$project" --arg other "projects/$other" '
    (.policies[] | select(.resource == $project).bindings) += [
      {role: "roles/viewer", members: [$viewer]}, {role: "roles/owner", members: [$person]}]
    | .policies += [{resource: $other, bindings: [{role: "roles/owner", members: [$stranger]}]}]' \
    "$auth/policy.json" >"$work/policy.json"
}

# serve MODE: a server in that mode, with TLS; one port for all APIs and one for Cloud Deploy alone.
serve() {
  {
    echo "listen = \"127.0.0.1:$port\""
    echo '[auth]'
    echo "mode = \"$1\""
    echo "policy = \"$work/policy.json\""
    case "$1" in
      local) echo "local = \"$auth/server.json\"" ;;
      jwt)
        echo "service_accounts = [\"$work/accounts.json\"]"
        echo '[[auth.issuer]]'
        echo "name = \"$issuer\""
        echo 'audiences = ["longhaul"]'
        echo "jwks_file = \"$work/jwks.json\""
        ;;
    esac
    echo '[[listener]]'
    echo "listen = \"127.0.0.1:$deploy_port\""
    echo 'api = "clouddeploy"'
    echo '[tls]'
    echo "cert = \"$work/tls/server.pem\""
    echo "key = \"$work/tls/server-key.pem\""
  } >"$work/server-$1.toml"
  # The binary itself, so that it is its own process that is ended.
  "$LONGHAUL_BIN" serve -c "$work/server-$1.toml" </dev/null >>"$work/log" 2>&1 &
  server=$!
  local until=$((SECONDS + ready_seconds))
  until longhaul health --server "$base" --ca "$ca" >/dev/null 2>&1; do
    if ! kill -0 "$server" 2>/dev/null || ((SECONDS >= until)); then
      cat "$work/log"
      fail_suite "the server in mode $1 does not become ready"
    fi
    sleep 0.1
  done
}
stop() {
  [[ -n $server ]] && kill "$server" 2>/dev/null && wait "$server" 2>/dev/null
  server=""
}

url64() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
# jwt ALGORITHM ACCOUNT CLAIMS: a token by an account's own key, or by what its forgers have.
jwt() {
  local key="$work/key-$2.pem" public="$work/public-$2.pem" kid message
  if [[ ! -e $key ]]; then
    jq --raw-output .private_key "$(file_of "$2")" >"$key"
    openssl rsa -in "$key" -pubout -out "$public" 2>/dev/null
  fi
  kid="$(jq --raw-output .private_key_id "$(file_of "$2")")"
  message="$(printf '{"alg":"%s","typ":"JWT","kid":"%s"}' "$1" "$kid" | url64).$(printf %s "$3" | url64)"
  case "$1" in
    none) echo "$message." ;;
    HS256) echo "$message.$(printf %s "$message" | openssl dgst -sha256 -hmac "$(cat "$public")" -binary | url64)" ;;
    RS256) echo "$message.$(printf %s "$message" | openssl dgst -sha256 -sign "$key" -binary | url64)" ;;
  esac
}
# issued KEY VALUE..: what the issuer says of the person, with some claims put otherwise.
issued() {
  local claims
  claims="$(jq --null-input --compact-output --arg iss "$issuer" --arg email "$person" --argjson now "$now" \
    --arg scope "$cloud_platform" '{iss: $iss, aud: "longhaul", sub: "1042", email: $email,
      email_verified: true, scope: $scope, iat: $now, exp: ($now + 3000)}')"
  changed "$claims" "$@"
}
# self_signed KEY VALUE..: what the first account says of itself, with some claims put otherwise.
self_signed() {
  local claims
  claims="$(jq --null-input --compact-output --arg me "$(email_of '')" --argjson now "$now" \
    --arg scope "$cloud_platform" '{iss: $me, sub: $me, scope: $scope, iat: $now, exp: ($now + 3000)}')"
  changed "$claims" "$@"
}
changed() {
  local claims="$1"
  shift
  while (($#)); do
    claims="$(jq --compact-output --arg key "$1" --argjson value "$2" '.[$key] = $value' <<<"$claims")"
    shift 2
  done
  echo "$claims"
}

# Every token of the run, by name; those that end in -self are the account's own, the others the issuer's.
declare -A tokens
make_tokens() {
  local storage='"https://www.googleapis.com/auth/devstorage.read_only"' past=$((now - 7200))
  local over="iat $past exp $((past + 3000))" of
  for of in issued self_signed; do
    local kind='' account=issuer audience='"another-service"'
    [[ $of == self_signed ]] && kind=-self account='' audience='"https://storage.googleapis.com/"'
    # shellcheck disable=SC2086  # four words
    tokens[expired$kind]="$(jwt RS256 "$account" "$($of $over)")"
    tokens[audience$kind]="$(jwt RS256 "$account" "$($of aud "$audience")")"
    tokens[none$kind]="$(jwt none "$account" "$($of)")"
    tokens[hmac$kind]="$(jwt HS256 "$account" "$($of)")"
    tokens[scope$kind]="$(jwt RS256 "$account" "$($of scope "$storage")")"
    tokens[good$kind]="$(jwt RS256 "$account" "$($of)")"
  done
  tokens[viewer]="$(longhaul auth token --key-file "$(file_of viewer)")"
  tokens[stranger]="$(longhaul auth token --key-file "$(file_of stranger)")"
}

# start API TOKEN PROJECT COLLECTION: starts an operation and prints its name.
start() {
  curl --silent --cacert "$ca" --header "Authorization: Bearer ${tokens[$2]}" \
    --header 'Content-Type: application/json' --data '{}' \
    "$base/$1/v1/projects/$3/locations/$location/$4" | jq --raw-output '.name // .'
}
pipeline() { start clouddeploy "$1" "$2" "deliveryPipelines?deliveryPipelineId=$3"; }
index() { start cloudaicompanion "$1" "$2" "codeRepositoryIndexes?codeRepositoryIndexId=$3"; }
# ended API TOKEN NAME: whether an operation is done, and with which code.
ended() {
  curl --silent --cacert "$ca" --header "Authorization: Bearer ${tokens[$2]}" "$base/$1/v1/$3" |
    jq --raw-output '"\(.done // false) \(.error.code // "-")"'
}
