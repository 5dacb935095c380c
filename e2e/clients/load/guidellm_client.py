"""guidellm, a command."""

import json
import os
import re
import subprocess
import sys

NAME, PACKAGE = "guidellm", "guidellm"

# SERVER is BASE_URL without /v1, and TOKENIZER the model's folder or its name at the hub.
COMMAND = r"""
# docs: begin
guidellm run --backend kind=openai_http,target=SERVER,model=MODEL,api_key=TOKEN \
    --data kind=synthetic_text,prompt_tokens=20,output_tokens=10 \
    --tokenizer kind=huggingface_auto,model=TOKENIZER
# docs: end
"""


def group(cases):
    """Returns one group for each case: a run has one model."""
    return [[case] for case in cases]


def measure(cases, tokenizer, folder):
    """Runs guidellm for a case and returns the outcomes of its requests."""
    (case,) = cases
    values = {"SERVER": case["base_url"].removesuffix("/v1"), "MODEL": case["model"], "TOKEN": case["token"], "TOKENIZER": tokenizer}
    words = COMMAND.replace("\\\n", " ").splitlines()[2].split()[1:]
    words = [re.sub(r"\b[A-Z]{5,}\b", lambda name: values[name[0]], word) for word in words]
    words[2] += f",stream={case['call'] == 'stream'}"
    if case["name"] in ("long wait", "error after newlines"):
        words[2] += ",validate_backend=false"  # their gateway has no /health
    file = os.path.join(folder, "report.json")
    words += ["--profile", "kind=synchronous", "--constraint", f"kind=max_requests,count={case['tries']}"]
    words += ["--output", f"kind=json,path={file}", "--disable-console"]
    env = os.environ | {"PYTHONPATH": os.path.join(os.path.dirname(__file__), "standin"), "USE_TORCH": "0", "HF_HUB_OFFLINE": "1"}
    for _ in range(2):  # on a busy machine it may end before its first request, without a report
        done = subprocess.run([sys.executable, "-m", "guidellm", *words], capture_output=True, text=True, env=env)
        if os.path.exists(file):
            break
    else:
        raise RuntimeError(f"exit {done.returncode}: {done.stdout}{done.stderr}")
    with open(file) as report:
        requests = json.load(report)["benchmarks"][0]["requests"]
    return [[request["output"] for request in requests["successful"]] + [read_error(request) for request in requests["errored"]]]


def read_error(request):
    text = request["info"]["error"]
    status = re.search(r" '(\d{3}) ", text)
    return text.partition("(")[0], int(status[1]) if status else 0, text
