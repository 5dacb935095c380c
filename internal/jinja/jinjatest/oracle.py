"""Answers, line by line, what transformers makes of chat templates.

Each line in has one of these questions:
  {"template", "vars"}           render a template with variables, without apply_chat_template
  {"template", "chat"}           apply_chat_template with an object of messages, tools and further variables
  {"files"}                      the special tokens of a tokenizer that is loaded from files by name
Out: {"ok": true, "output": ...}, {"ok": true, "tokens": {...}} or
{"ok": false, "kind": "syntax" | "raise" | "runtime", "error": ...}.
With "repeat": n the answer to the first also has the microseconds of one render.

The clock is stopped at 2024-07-26 12:34:56.
"""
import json
import os
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "critical", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}

import jinja2  # noqa: E402
from tokenizers import Tokenizer, models  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402
from transformers.utils import chat_template_utils  # noqa: E402


class StoppedClock(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, 12, 34, 56)


chat_template_utils.datetime = StoppedClock
VOCABULARY = models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")
TOKENIZER = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(VOCABULARY))


def compile_template(source):
    template = chat_template_utils._compile_jinja_template(source)
    template.environment.globals.pop("lipsum", None)  # its text is random
    return template


def render(question):
    template = compile_template(question["template"])
    out = {"ok": True, "output": template.render(**question["vars"])}
    if repeat := question.get("repeat", 0):
        start = time.perf_counter()
        for _ in range(repeat):
            template.render(**question["vars"])
        out["microseconds"] = (time.perf_counter() - start) / repeat * 1e6
    return out


def apply(question):
    chat = dict(question["chat"])
    output = TOKENIZER.apply_chat_template(
        chat.pop("messages"), chat_template=question["template"], tokenize=False, **chat
    )
    return {"ok": True, "output": output}


def load_tokens(question):
    with tempfile.TemporaryDirectory() as folder:
        Tokenizer(VOCABULARY).save(str(Path(folder, "tokenizer.json")))
        for name, text in question["files"].items():
            Path(folder, name).write_text(text, encoding="utf-8")
        return {"ok": True, "tokens": PreTrainedTokenizerFast.from_pretrained(folder).special_tokens_map}


def answer(question):
    try:
        compile_template(question.get("template", ""))
    except Exception as e:
        return {"ok": False, "kind": "syntax", "error": f"{type(e).__name__}: {e}"}
    try:
        if "files" in question:
            return load_tokens(question)
        return apply(question) if "chat" in question else render(question)
    except Exception as e:
        if type(e) is jinja2.TemplateError:  # of raise_exception
            return {"ok": False, "kind": "raise", "error": str(e)}
        return {"ok": False, "kind": "runtime", "error": f"{type(e).__name__}: {e}"}


if __name__ == "__main__":  # measurements want the environment only
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
