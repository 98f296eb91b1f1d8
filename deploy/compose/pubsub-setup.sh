#!/usr/bin/env bash
# Makes the topics and subscriptions that the runbooks name, in a Pub/Sub emulator.
#     pubsub-setup.sh http://HOST:PORT/v1/projects/PROJECT
set -euo pipefail
url=$1
project=projects/${url##*/projects/}

# 409: it is there already.
make() {
    local status
    status=$(curl -sS -o /dev/null -w '%{http_code}' -X PUT "$url/$1" \
        -H 'Content-Type: application/json' -d "$2")
    echo "$status $1"
    [ "$status" = 200 ] || [ "$status" = 409 ]
}

make topics/erlang-autonomics '{}'
make topics/erlang-autonomics-dlq '{}'
make subscriptions/erlang-autonomics-dlq \
    '{"topic": "'"$project"'/topics/erlang-autonomics-dlq", "ackDeadlineSeconds": 60}'
make subscriptions/erlang-autonomics-signals-sub \
    '{"topic": "'"$project"'/topics/erlang-autonomics", "ackDeadlineSeconds": 60,
      "deadLetterPolicy": {
        "deadLetterTopic": "'"$project"'/topics/erlang-autonomics-dlq", "maxDeliveryAttempts": 5}}'
