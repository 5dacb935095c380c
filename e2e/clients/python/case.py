"""The cases of the clients' test, for the programs of this folder."""

import json
import threading
import time

QUESTION = "Name three colours."
lock = threading.Lock()


def call_client(client, case):
    """Calls a client as a case says, up to `tries` times: the first call over a
    limit may be one that is not refused."""
    options = {"once": True} if case["once"] else {}
    for _ in range(case["tries"]):
        text = getattr(client, case["call"])(case["base_url"], case["token"], case["model"], **options)
    return text or ""


def outcome(client, case):
    """Returns the text of an answer, or the class and status of an error and
    whether it has the gateway's message."""
    try:
        return {"text": call_client(client, case)}
    except Exception as error:  # whatever a client raises is its result
        said = f"{error} {getattr(error, 'body', '')}"
        status = getattr(error, "status_code", None)
        return {"error": type(error).__name__, "status": status if isinstance(status, int) else 0, "says": case["says"] in said, "message": said[-500:]}


def report(line):
    with lock:
        print(json.dumps(line), flush=True)


def run(client, version, cases):
    """Puts one client through all cases at once. It has the functions chat and
    stream, which take a base URL, a token and a model; chat also takes once=True
    for no tries after the first."""

    def work(case):
        report({"client": client.NAME, "version": version, "case": case["name"]} | outcome(client, case))

    threads = [threading.Thread(target=work, args=(case,)) for case in cases]
    for thread in threads:
        thread.start()
        time.sleep(0.05)  # libraries import parts of themselves at their first call
    for thread in threads:
        thread.join()
