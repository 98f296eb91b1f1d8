#!/usr/bin/env python3
"""Publishes signals to a Pub/Sub emulator with Google's own client, and reads the dead letters.

Owns: topics, subscriptions, what is published, and the manifest that says so. Refuses to know:
what the service answers, and when it lives. Needs PUBSUB_EMULATOR_HOST and the packages of
requirements.txt.

    publish_signals.py grants MANIFEST PUSH_ENDPOINT     makes everything, registers the tenants;
                                                         "pull" stands for no endpoint
    publish_signals.py remake PUSH_ENDPOINT IDS          makes everything anew, and uses up the
                                                         first IDS message ids
    publish_signals.py signals MANIFEST TOTAL            publishes TOTAL messages
    publish_signals.py again MANIFEST SERIAL ...         publishes these once more
    publish_signals.py dead-letters COUNT SECONDS        waits for COUNT different dead letters

The manifest has one JSON object a line: {"serial", "message_id", "kind", "data"} with kind
"good" or "poison". `dead-letters` prints one line for each: the serial of the message. A dead
letter is published anew and so has another message id; its attributes stay, hence the serial.
"""

import json
import random
import sys
import time

from google.api_core.exceptions import DeadlineExceeded
from google.cloud import pubsub_v1

PROJECT = "tai-autonomics"
SIGNALS = "erlang-autonomics-signals"
SUBSCRIPTION = "erlang-autonomics-signals-sub"
DEAD_LETTERS = "erlang-autonomics-dlq"

ACK_DEADLINE_S = 30
# Pulled messages are not given back by who is killed: they come again after this time.
PULL_ACK_DEADLINE_S = 10
# This emulator goes on delivering to the stream of a process that was killed, and each such delivery
# costs an attempt: three kills of the service and one of its own were seen to cost up to 20.
PULL_DELIVERY_ATTEMPTS_MAX = 50
# A good message must not become a dead letter because the service is killed. The emulator sends a
# message that was not acknowledged again after one second, so an outage of less than five seconds,
# which the test asserts, costs it at most five deliveries, and three kills at most 15. No retry
# policy: with a backoff of five seconds this emulator stops after the third delivery.
DELIVERY_ATTEMPTS_MAX = 20

TENANTS = 100
# What must come again and again with the same numbers: a failure can be looked at anew.
SEED = 20_260_101
METRICS = ("cpu_utilization", "memory_utilization", "queue_depth", "error_rate")
SIGNAL_TYPES = ("quota_approaching", "capacity_alert", "failure_detected")
SEVERITIES = ("info", "warning", "critical", None)
# Some below, between and above the thresholds of 60 and 80, and the thresholds themselves.
ZONES = ((0, 59.999), (60.001, 80), (80.001, 120), (60, 60), (80, 80))


def tenant(number):
    return f"tenant-{number:03}"


def measurement(dice, start_ms):
    low, high = dice.choice(ZONES)
    return {
        "tenant_id": tenant(dice.randrange(TENANTS)),
        "metric": dice.choice(METRICS),
        "value": round(dice.uniform(low, high), 3),
        # Up to ten minutes late, in no order.
        "timestamp_ms": start_ms - dice.randrange(600_000),
    }


def autonomic(dice, start_ms):
    signal = {
        "event": "autonomic_signal",
        "tenant_id": tenant(dice.randrange(TENANTS)),
        "signal_type": dice.choice(SIGNAL_TYPES),
        "timestamp_ms": start_ms - dice.randrange(600_000),
    }
    severity = dice.choice(SEVERITIES)
    return signal if severity is None else {**signal, "severity": severity}


def entitlement(dice, _):
    # Ten tenants may lose what they were granted, so that signals of theirs are refused as well.
    number = dice.randrange(TENANTS)
    names = ["professional", "seats"] if number < 10 else ["seats", "storage"]
    return {
        "tenant_id": tenant(number),
        "entitlement_id": dice.choice(names),
        "action": dice.choice(("grant", "grant", "suspend", "resume", "revoke")),
        "metadata": {"source": "marketplace", "request_id": f"order-{dice.randrange(10**6)}"},
    }


def untenanted(dice, start_ms):
    seconds = start_ms // 1000 - dice.randrange(600)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    return {"signal": "test", "timestamp": moment}


GOOD = ((measurement, 80), (autonomic, 10), (entitlement, 8), (untenanted, 2))

POISON = (
    "not JSON at all {",
    '["an", "array"]',
    '{"tenant_id":"tenant-001","metric":"queue_depth","timestamp_ms":1760000000000}',
    '{"tenant_id":"tenant-001","metric":"queue_depth","value":"high","timestamp_ms":1760000000000}',
    '{"tenant_id":"tenant-001","entitlement_id":"professional","action":"obliterate"}',
    '{"tenant_id":"tenant-001","tenant_id":"tenant-002","entitlement_id":"x","action":"grant"}',
    '{"metric":"queue_depth","value":12,"timestamp_ms":1760000000000}',
    '{"tenant_id":"nobody","metric":"queue_depth","value":12,"timestamp_ms":1760000000000}',
    '{"event":"autonomic_signal","tenant_id":"tenant-001","signal_type":"boredom"}',
    '{"tenant_id":"tenant-001"}',
)


def messages(total):
    """Pairs of kind and payload: a tenth are repetitions of a payload, a fiftieth are poison."""
    dice = random.Random(SEED)
    start_ms = int(time.time() * 1000)
    makers = [maker for maker, _ in GOOD]
    weights = [weight for _, weight in GOOD]
    good = []
    for number in range(total):
        if number % 50 == 49:
            yield "poison", POISON[number // 50 % len(POISON)]
        elif number % 10 == 3 and good:
            yield "good", dice.choice(good)
        else:
            maker = dice.choices(makers, weights)[0]
            good.append(json.dumps(maker(dice, start_ms)))
            yield "good", good[-1]


def publish(manifest, first_serial, batch):
    client = pubsub_v1.PublisherClient()
    topic = client.topic_path(PROJECT, SIGNALS)
    sent = []
    for serial, (kind, data) in enumerate(batch, first_serial):
        future = client.publish(topic, data.encode(), serial=str(serial))
        sent.append((serial, kind, data, future))
    with open(manifest, "a", encoding="utf-8") as file:
        for serial, kind, data, future in sent:
            message_id = future.result(timeout=60)
            line = {"serial": serial, "message_id": message_id, "kind": kind, "data": data}
            file.write(json.dumps(line) + "\n")


def remake(push_endpoint):
    publisher, subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
    topic = publisher.topic_path(PROJECT, SIGNALS)
    dead_letter_topic = publisher.topic_path(PROJECT, DEAD_LETTERS)
    publisher.create_topic(name=topic)
    publisher.create_topic(name=dead_letter_topic)
    dead_letters = subscriber.subscription_path(PROJECT, DEAD_LETTERS)
    subscriber.create_subscription(name=dead_letters, topic=dead_letter_topic)
    pulled = push_endpoint == "pull"
    subscriber.create_subscription(request={
        "name": subscriber.subscription_path(PROJECT, SUBSCRIPTION),
        "topic": topic,
        "push_config": {} if pulled else {"push_endpoint": push_endpoint},
        "ack_deadline_seconds": PULL_ACK_DEADLINE_S if pulled else ACK_DEADLINE_S,
        "dead_letter_policy": {
            "dead_letter_topic": dead_letter_topic,
            "max_delivery_attempts":
                PULL_DELIVERY_ATTEMPTS_MAX if pulled else DELIVERY_ATTEMPTS_MAX,
        },
    })


def grants(manifest, push_endpoint):
    remake(push_endpoint)
    granted = [
        ("good", json.dumps(
            {"tenant_id": tenant(number), "entitlement_id": "professional", "action": "grant"}))
        for number in range(TENANTS)
    ]
    publish(manifest, 0, granted)


def use_up(count):
    """A new emulator counts message ids from 1 again; the service has no way to tell the new ones
    from those of before, which Pub/Sub itself never repeats."""
    client = pubsub_v1.PublisherClient()
    topic = client.topic_path(PROJECT, "ids-used-before")
    client.create_topic(name=topic)
    for future in [client.publish(topic, b"-") for _ in range(count)]:
        future.result(timeout=60)


def again(manifest, serials):
    with open(manifest, encoding="utf-8") as file:
        sent = {line["serial"]: line for line in map(json.loads, file)}
    client = pubsub_v1.PublisherClient()
    topic = client.topic_path(PROJECT, SIGNALS)
    futures = [
        client.publish(topic, sent[serial]["data"].encode(), serial=str(serial))
        for serial in serials
    ]
    for future in futures:
        future.result(timeout=60)


def dead_letters(count, wait_s):
    subscriber = pubsub_v1.SubscriberClient()
    subscription = subscriber.subscription_path(PROJECT, DEAD_LETTERS)
    deadline = time.monotonic() + wait_s
    seen = set()
    while len(seen) < count and time.monotonic() < deadline:
        try:
            pulled = subscriber.pull(
                subscription=subscription, max_messages=100, timeout=5).received_messages
        except DeadlineExceeded:
            continue
        if pulled:
            subscriber.acknowledge(
                subscription=subscription, ack_ids=[message.ack_id for message in pulled])
        seen.update(int(received.message.attributes["serial"]) for received in pulled)
    for serial in sorted(seen):
        print(serial)


def main(arguments):
    verb, *rest = arguments
    if verb == "grants":
        manifest, push_endpoint = rest
        grants(manifest, push_endpoint)
    elif verb == "remake":
        push_endpoint, ids = rest
        remake(push_endpoint)
        use_up(int(ids))
    elif verb == "again":
        again(rest[0], [int(serial) for serial in rest[1:]])
    elif verb == "signals":
        manifest, total = rest
        publish(manifest, TENANTS, messages(int(total)))
    elif verb == "dead-letters":
        count, wait_s = rest
        dead_letters(int(count), float(wait_s))
    else:
        sys.exit("unknown verb")


if __name__ == "__main__":
    main(sys.argv[1:])
