"""Measures transformers over the corpus of chat templates, as
bench/template.go measures our engine.

Arguments: the folder of oracle.py, the corpus, the number of repetitions.
Prints a JSON object with the cost of each template in microseconds: compiling
it, rendering decoded data, and rendering with the decoding of the JSON. The
latter two are means over the conversations that the template can render ("ok").
"""
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
from oracle import chat_template_utils, compile_template  # noqa: E402

environment = compile_template("").environment

corpus, times = Path(sys.argv[2]), int(sys.argv[3])


def microseconds(do, over):
    began = time.perf_counter()
    for _ in range(times):
        for one in over:
            do(one)
    return (time.perf_counter() - began) * 1e6 / (times * max(len(over), 1))


def normalized(vars):
    """The variables as apply_chat_template passes them to a template."""
    messages = chat_template_utils._normalize_chat_messages(vars["messages"])
    return vars | {"messages": chat_template_utils._alias_reasoning_fields(messages)}


def renders(template, vars):
    try:
        template.render(**vars)
        return True
    except Exception:
        return False


texts = {p.stem: p.read_text() for p in sorted(corpus.glob("conversations/*.json"))}
data = {name: json.loads(text) for name, text in texts.items()}
out = {}
for path in sorted(corpus.glob("templates/*.jinja")):
    with open(path, newline="") as f:
        source = f.read()
    try:
        began = time.perf_counter()
        template = environment.from_string(source)
        compiled = (time.perf_counter() - began) * 1e6
    except Exception:
        continue
    ok = [name for name in data if renders(template, data[name]) and renders(template, normalized(data[name]))]
    out[path.stem] = {
        "ok": ok,
        "compile": compiled,
        "render": microseconds(lambda name: template.render(**data[name]), ok),
        "read": microseconds(lambda name: template.render(**normalized(json.loads(texts[name]))), ok),
    }
json.dump(out, sys.stdout)
