"""Keeps Schemathesis from shutting itself out.

Owns: which live settings and which sources it leaves alone. Refuses to know: what is right.
"""

import ipaddress

import schemathesis

# With these it would have itself refused or timed out, and see nothing else from then on; the test
# reads the metrics and wants an end in order.
KEPT_SETTINGS = {
    "GRACEFUL_SHUTDOWN_MS",
    "MAX_CONCURRENT_REQUESTS",
    "METRICS_ENABLED",
    "RATE_LIMIT_BURST",
    "RATE_LIMIT_PER_SECOND",
    "REQUEST_TIMEOUT_MS",
    "TENANT_MAX_CONCURRENT",
}
OTHER_SETTING = "PUBSUB_MAX_MESSAGES"

LOOPBACK = ipaddress.ip_address("127.0.0.1")
OTHER_SOURCE = "203.0.113.7"


def holds_loopback(source):
    """Whether a block of this source, if it is one, would hold for this machine."""
    try:
        net = ipaddress.ip_network(source, strict=False)
    except ValueError:
        return False
    mapped = getattr(net.network_address, "ipv4_mapped", None)
    return LOOPBACK in net or mapped == LOOPBACK


@schemathesis.hook
def before_call(context, case, kwargs):
    """Applies to every phase, also where a value comes from an earlier answer."""
    if case.operation.label == "PUT /admin/settings/{name}":
        if case.path_parameters.get("name") in KEPT_SETTINGS:
            case.path_parameters["name"] = OTHER_SETTING
    elif case.operation.label == "PUT /admin/sources":
        if isinstance(case.body, dict) and holds_loopback(case.body.get("source")):
            case.body["source"] = OTHER_SOURCE
