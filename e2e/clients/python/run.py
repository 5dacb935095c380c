"""Puts every client of this folder through cases and prints a line of JSON for
each result: run.py CASES, where CASES is a JSON list."""

import importlib
import importlib.metadata
import json
import sys
import threading

import case

NAMES = ["openai", "anthropic", "langchain", "litellm", "pydantic_ai", "openai_agents", "llm"]

cases = json.loads(sys.argv[1])
clients = [importlib.import_module(f"{name}_client") for name in NAMES]
case.report({"clients": len(clients)})
threads = []
for client in clients:
    version = importlib.metadata.version(client.PACKAGE)
    threads.append(threading.Thread(target=case.run, args=(client, version, cases)))
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
