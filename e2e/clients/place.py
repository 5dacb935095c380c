"""Shared by the programs of this folder: the server to call, and how the
outcome of a call is reported to the tests."""

import socket
import sys

resolve = socket.getaddrinfo


def localhost(host, *args, **kwargs):
    """Resolves names below localhost to this machine; not every system does."""
    return resolve("127.0.0.1" if str(host).endswith(".localhost") else host, *args, **kwargs)


socket.getaddrinfo = localhost
base_url, token, model = sys.argv[1:]


# llama.cpp closes some connections after it promised to keep them. Calls to it
# are retried; calls to the gateway must succeed at once.
attempts = 1 if "gateway." in base_url or "/proxy/" in base_url else 3


def outcome(call, errors):
    """Returns the result of a call, or the class and status of its error."""
    for attempt in range(attempts):
        try:
            return call() or {"error": "accepted"}
        except errors as error:
            failed = {"error": type(error).__name__, "status": getattr(error, "status_code", 0), "param": getattr(error, "param", None) or ""}
            if failed["error"] != "APIConnectionError":
                break
    return failed
