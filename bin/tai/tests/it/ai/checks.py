"""Runs checks by name and says which ones held.

Owns: the command line, and how a failure is told. Refuses to know: what is checked.

A script beside this one registers its checks and calls `main`. For each name on the command line it
prints `held NAME`; whoever started it counts these lines, so that a check that did not run is missed.
"""

import base64
import json
import os
import sys
import traceback

CHECKS = {}

URL = os.environ["AI_URL"]
KEY = os.environ["AI_KEY"]
MODEL = os.environ.get("AI_MODEL", "")

TOOL_ARGUMENTS = {"city": "\u00fc0"}
TOOL_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
# One pixel.
PICTURE = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
        "0000000c49444154789c63f8ffff3f0005fe02fea7d6059b0000000049454e44ae426082"
    )
).decode()


def words(count):
    """What every fake model says: the first `count` tokens."""
    return " ".join(f"{'ü' if at % 5 == 4 else 'w'}{at}" for at in range(count))


def check(function):
    """Registers a check under the name of its function."""
    CHECKS[function.__name__] = function
    return function


def equal(found, wanted, what=""):
    """Both are the same."""
    assert found == wanted, f"{what}: found {found!r}, wanted {wanted!r}"


def raises(kind, call):
    """The error that `call` ends with, which is of exactly this kind."""
    try:
        call()
    except Exception as error:  # The kind is what is checked.
        assert type(error) is kind, f"{type(error).__name__} and not {kind.__name__}: {error!r}"
        return error
    raise AssertionError(f"no {kind.__name__}")


def refused(error, status, reason):
    """A refusal of the gateway as its caller sees it."""
    equal(error.status_code, status, "status")
    shown = json.dumps(error.body)
    assert reason in shown, f"{reason} is not in {shown}"
    assert error.response.headers.get("x-request-id"), "no X-Request-ID"


def main():
    """Runs the checks that the command line names."""
    failed = False
    for name in sys.argv[1:]:
        try:
            CHECKS[name]()
            print(f"held {name}", flush=True)
        except Exception:  # Every failure is told, and the others run.
            failed = True
            print(f"failed {name}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
    sys.exit(failed)
