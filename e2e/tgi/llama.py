"""llama.cpp's own HTTP API: raw text in, tokens out, one by one."""

import http.client
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

PORT = int(os.environ.get("LLAMA_PORT", "8001"))
SPECIAL = {0: "<|endoftext|>", 1: "<|im_start|>", 2: "<|im_end|>"}  # llama.cpp gives their ids without a text
ENDS = {0, 2}


@contextmanager
def running():
    """The example's server, as a part of this one."""
    env = os.environ | {"PORT": str(PORT), "HOST": "127.0.0.1"}
    server = subprocess.Popen([sys.executable, "smollm2.py"], env=env)
    try:
        while server.poll() is None:
            try:
                tokenize("ready?")
                break
            except (ConnectionError, KeyError):  # KeyError: 503 while the model is loaded
                time.sleep(0.05)
        else:
            sys.exit(f"smollm2.py ended with {server.returncode}")
        yield
    finally:
        server.terminate()
        server.wait()


def post(path: str, body: dict):
    connection = http.client.HTTPConnection("127.0.0.1", PORT)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return connection, connection.getresponse()


def tokenize(text: str) -> list:
    connection, response = post("/tokenize", {"content": text, "add_special": True, "parse_special": True, "with_pieces": True})
    try:
        found = json.load(response)["tokens"]
    finally:
        connection.close()
    return [{"id": t["id"], "text": t["piece"] if isinstance(t["piece"], str) else "\ufffd", "logprob": None} for t in found]


def complete(inputs: str, ask: dict, most: int, seed: int):
    """Yields tokens in TGI's form, each with the most likely alternatives.
    Leaving the loop early closes the connection, and llama.cpp stops."""
    connection, response = post("/completion", request(inputs, ask, most, seed))
    try:
        if response.status != 200:
            raise RuntimeError(f"llama.cpp answers {response.status}: {response.read()}")
        shown = 0
        for line in response:
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line[len(b"data: ") :])
            # llama.cpp does not send tokens that are only part of a character.
            # TGI sends them with an empty text.
            for _ in range(event["tokens_predicted"] - shown - (not event["stop"])):
                yield {"id": 0, "text": "", "logprob": None, "special": False}, []
            shown = event["tokens_predicted"]
            if event["stop"]:
                return
            here = event["completion_probabilities"][-1]
            yield token(here, event["content"]), [token(t) for t in here["top_logprobs"][: ask["top_n_tokens"]]]
    finally:
        response.close()
        connection.close()


def token(one: dict, text=None) -> dict:
    special = one["id"] in SPECIAL
    return {
        "id": one["id"],
        "text": SPECIAL[one["id"]] if special else one["token"] if text is None else text,
        "logprob": one["logprob"],
        "special": special,
    }


def request(inputs: str, ask: dict, most: int, seed: int) -> dict:
    body = {
        "prompt": inputs,
        "n_predict": most,
        "stream": True,
        "n_probs": max(1, ask["top_n_tokens"]),
        "cache_prompt": False,  # so that the same question has the same answer
        "seed": seed % (1 << 32),
        # TGI's defaults, which are not llama.cpp's:
        "temperature": (ask["temperature"] or 1.0) if ask["do_sample"] else 0,
        "top_k": ask["top_k"] or 0,
        "top_p": ask["top_p"] or 1.0,
        "typical_p": ask["typical_p"] or 1.0,
        "min_p": 0,
        "repeat_penalty": ask["repetition_penalty"] or 1.0,
        "frequency_penalty": ask["frequency_penalty"] or 0,
    }
    if ask["grammar"] and ask["grammar"]["type"] == "json":
        body["json_schema"] = ask["grammar"]["value"]
    return body
