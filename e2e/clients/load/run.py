"""Puts the load generators of this folder through cases and prints a line of JSON
for each result: run.py CASES, where CASES is a JSON list."""

import importlib.metadata
import json
import os
import sys
import tempfile
import threading

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import aiperf_client
import guidellm_client

CLIENTS = [guidellm_client, aiperf_client]
lock = threading.Lock()


def report(line):
    with lock:
        print(json.dumps(line), flush=True)


def write_tokenizer(folder):
    """Writes a tokenizer with a token for each byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate([*letters, "<end>"])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as file:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}, file)


def describe(case, outcomes):
    """Returns the result of a case from the outcomes of its requests, which are
    texts, or the class, status and message of an error. The first requests of a case
    may succeed before one fails."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, tuple)]
    if not outcomes:
        return {"error": "no request"}
    if not errors:
        return {"text": outcomes[0]}
    name, status, message = errors[0]
    return {"error": name, "status": status, "says": bool(case["says"]) and case["says"] in message, "message": message[-500:]}


def run(client, cases, tokenizer):
    """Puts a load generator through the cases, in the groups that it asks for."""
    version = importlib.metadata.version(client.PACKAGE)
    for group in client.group(cases):
        with tempfile.TemporaryDirectory() as folder:
            for case, outcomes in zip(group, client.measure(group, tokenizer, folder), strict=True):
                report({"client": client.NAME, "version": version, "case": case["name"]} | describe(case, outcomes))


cases = json.loads(sys.argv[1])
report({"clients": len(CLIENTS)})
with tempfile.TemporaryDirectory() as tokenizer:
    write_tokenizer(tokenizer)
    threads = [threading.Thread(target=run, args=(client, cases, tokenizer)) for client in CLIENTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
