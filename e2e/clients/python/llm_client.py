"""Simon Willison's llm, a command."""

import os
import re
import subprocess
import sys
import tempfile

from case import QUESTION

NAME, PACKAGE = "llm", "llm"

# In the file extra-openai-models.yaml of the folder that `llm logs path` names.
MODELS = """\
# docs: begin
- model_id: MODEL
  model_name: MODEL
  api_base: BASE_URL
  api_key_name: dstack
# docs: end
"""


class CommandFailed(Exception):
    """The command ended with another status than 0."""


def prompt(base_url, token, model, *more):
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "extra-openai-models.yaml"), "w") as file:
            file.write(re.sub(r"\bMODEL\b", model, MODELS).replace("BASE_URL", base_url))
        program = [sys.executable, "-m", "llm", "-m", model, "--key", token, "--no-log", *more, QUESTION]
        env = os.environ | {"LLM_USER_PATH": folder}
        done = subprocess.run(program, capture_output=True, text=True, env=env)
    if done.returncode:
        error = CommandFailed(done.stderr)
        error.__class__ = type(f"exit {done.returncode}", (CommandFailed,), {})
        raise error
    return done.stdout.strip()


def chat(base_url, token, model, once=False):  # it has no option for its tries
    return prompt(base_url, token, model, "--no-stream")


def stream(base_url, token, model):
    return prompt(base_url, token, model)
