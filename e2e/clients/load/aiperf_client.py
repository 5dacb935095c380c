"""aiperf, a command."""

import json
import os
import re
import subprocess
import sys

NAME, PACKAGE = "aiperf", "aiperf"

# SERVER is BASE_URL without /v1, and TOKENIZER the model's folder or its name at the hub.
COMMAND = r"""
# docs: begin
aiperf profile --url SERVER --model MODEL --api-key TOKEN --endpoint-type chat --streaming \
    --tokenizer TOKENIZER --isl 20 --osl 10
# docs: end
"""


def group(cases):
    """Returns cases together that one run can have: it may have several models."""
    groups = {}
    for case in cases:
        groups.setdefault((case["call"], case["base_url"], case["token"], case["tries"]), []).append(case)
    return groups.values()


def measure(cases, tokenizer, folder):
    """Runs aiperf for cases and returns the outcomes of the requests of each.
    The command fails if no request succeeds; it must write its report even then."""
    first, models = cases[0], [case["model"] for case in cases]
    values = {"SERVER": first["base_url"].removesuffix("/v1"), "MODEL": ",".join(models), "TOKEN": first["token"], "TOKENIZER": tokenizer}
    words = COMMAND.replace("\\\n", " ").splitlines()[2].split()[1:]
    words = [values.get(word, word) for word in words if word != "--streaming" or first["call"] == "stream"]
    words += ["--request-count", str(len(cases) * first["tries"]), "--concurrency", str(len(cases)), "--workers-max", "1"]
    words += ["--output-artifact-dir", folder, "--export-level", "raw", "--ui", "none", "--no-gpu-telemetry", "--no-server-metrics"]
    done = subprocess.run([sys.executable, "-m", "aiperf", *words], capture_output=True, text=True)
    outcomes = {model: [] for model in models}
    file = os.path.join(folder, "profile_export_raw.jsonl")
    if not os.path.exists(file):  # all requests have failed
        file = os.path.join(folder, "profile_export.jsonl")
    if not os.path.exists(file):
        raise RuntimeError(f"exit {done.returncode}: {done.stdout}{done.stderr}")
    with open(file) as records:
        for record in map(json.loads, records):
            outcomes[record["payload"]["model"] if "payload" in record else models[0]].append(read_outcome(record))
    return [outcomes[model] for model in models]


def read_outcome(record):
    """Returns the text of a response, or an error."""
    if error := record.get("error"):
        return error["type"], error.get("code") or 0, error["message"]
    text = ""
    for response in record["responses"]:
        data = [packet["value"] for packet in response.get("packets", []) if packet["name"] == "data"] or [response.get("text", "")]
        for body in data:
            for choice in json.loads(body).get("choices", []) if body.lstrip().startswith("{") else []:
                text += (choice.get("delta") or choice.get("message") or {}).get("content") or ""
    return text
