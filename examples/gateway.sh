#!/bin/sh
# The whole API speaks JSON too: keys and values in base64, 64-bit numbers as strings.
# examples/gateway.sh [HOST:PORT]
set -eu
server=http://${1:-127.0.0.1:2379}
b64() { printf %s "$1" | base64; }
call() { curl --silent --show-error --fail "$server/v3/$1" --data "$2" && echo; }

call kv/put "{\"key\":\"$(b64 greeting)\",\"value\":\"$(b64 hello)\"}"
call kv/range "{\"key\":\"$(b64 greeting)\"}"
# A transaction: only if nobody wrote it again, replace it.
call kv/txn "{\"compare\":[{\"key\":\"$(b64 greeting)\",\"target\":\"VERSION\",\"version\":\"1\"}],
  \"success\":[{\"request_put\":{\"key\":\"$(b64 greeting)\",\"value\":\"$(b64 'hello again')\"}}]}"
# History since revision 2, as a stream of lines; curl gives up after a second.
curl --silent --no-buffer --max-time 1 "$server/v3/watch" \
  --data "{\"create_request\":{\"key\":\"$(b64 greeting)\",\"start_revision\":\"2\"}}" || true
call kv/deleterange "{\"key\":\"$(b64 greeting)\"}"
