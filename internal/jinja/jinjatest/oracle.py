#!/usr/bin/python3
"""Answers, line by line, what Python's jinja2 makes of a template.

In: {"template": ..., "vars": ...}. Out: {"ok": true, "output": ...} or
{"ok": false, "kind": "syntax" | "raise" | "runtime", "error": ...}.
With "repeat": n the answer also has the microseconds of one render.

The environment is configured as in Hugging Face transformers for chat
templates, with the clock stopped at 2024-07-26 12:34:56.
"""
import json
import sys
import time
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Raised(jinja2.TemplateError):
    pass


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("through"), [], [], body).set_lineno(line)

    @jinja2.pass_eval_context
    def through(self, context, caller):
        return caller()


def raise_exception(m):
    raise Raised(m)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


now = datetime(2024, 7, 26, 12, 34, 56)
environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
)
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = raise_exception
environment.globals["strftime_now"] = lambda f: now.strftime(f)
del environment.globals["lipsum"]


def answer(question):
    try:
        template = environment.from_string(question["template"])
    except Exception as e:
        return {"ok": False, "kind": "syntax", "error": f"{type(e).__name__}: {e}"}
    try:
        out = {"ok": True, "output": template.render(**question["vars"])}
    except Raised as e:
        return {"ok": False, "kind": "raise", "error": str(e)}
    except Exception as e:
        return {"ok": False, "kind": "runtime", "error": f"{type(e).__name__}: {e}"}
    repeat = question.get("repeat", 0)
    if repeat:
        start = time.perf_counter()
        for _ in range(repeat):
            template.render(**question["vars"])
        out["microseconds"] = (time.perf_counter() - start) / repeat * 1e6
    return out


if __name__ == "__main__":  # measurements want the environment only
    for line in sys.stdin:
        result = json.dumps(answer(json.loads(line)))
        sys.stdout.write(result + "\n")
        sys.stdout.flush()
