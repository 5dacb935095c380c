"""What the programs of this folder share: where they ask, and how an answer
of an official client is told to the tests."""

import socket
import sys

resolve = socket.getaddrinfo


def localhost(host, *args, **kwargs):
    """Names below localhost are this machine; not every system knows it."""
    return resolve("127.0.0.1" if str(host).endswith(".localhost") else host, *args, **kwargs)


socket.getaddrinfo = localhost
base_url, token, model = sys.argv[1:]


# llama.cpp closes some connections that it said it keeps. Whoever asks it
# directly has to ask again; whoever asks the gateway must not need to.
attempts = 1 if "gateway." in base_url or "/proxy/" in base_url else 3


def outcome(call, errors):
    """What a call gave, or the class and the status of its error."""
    for attempt in range(attempts):
        try:
            return call() or {"error": "accepted"}
        except errors as error:
            failed = {"error": type(error).__name__, "status": getattr(error, "status_code", 0), "param": getattr(error, "param", None) or ""}
            if failed["error"] != "APIConnectionError":
                break
    return failed
