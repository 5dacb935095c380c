"""Talks to the model endpoint with Anthropic's official client, and prints
what came of it as JSON, by the name of the question: messages.py BASE_URL
TOKEN MODEL, where BASE_URL ends before /v1."""

import json

import anthropic
from place import base_url, model, outcome, token

question = [{"role": "user", "content": "Name three colours."}]
client = anthropic.Anthropic(base_url=base_url, api_key=token, max_retries=0, timeout=60)
greedy = {"model": model, "messages": question, "max_tokens": 16, "extra_body": {"temperature": 0, "cache_prompt": False}}


def whole(**more):
    a = client.messages.create(**greedy | more)
    return {
        "texts": [b.text for b in a.content],
        "ends": [a.stop_reason],
        "prompt": a.usage.input_tokens + (a.usage.cache_read_input_tokens or 0),
        "tokens": a.usage.output_tokens,
    }


def stream():
    with client.messages.stream(**greedy) as events:
        pieces = list(events.text_stream)
        last = events.get_final_message()
    return {"texts": ["".join(pieces)], "ends": [last.stop_reason], "pieces": len(pieces), "tokens": last.usage.output_tokens}


def left():
    """A stream that is left, and the next answer on the model's one slot."""
    pieces = 0
    with client.messages.stream(**greedy | {"max_tokens": 1500}) as events:
        for _ in events.text_stream:
            pieces += 1
            if pieces == 3:
                break
    return whole(max_tokens=1) | {"pieces": pieces}


def as_nobody():
    anthropic.Anthropic(base_url=base_url, api_key="wrong", max_retries=0).messages.create(**greedy)


questions = {
    "list": lambda: {"texts": [m.id for m in client.models.list()]},
    "show": lambda: {"texts": [client.models.retrieve(model).id]},
    "whole": whole,
    "stream": stream,
    "stop": lambda: whole(stop_sequences=["Red"]),
    "count": lambda: {"prompt": client.messages.count_tokens(model=model, messages=question).input_tokens},
    "left": left,
    "wrong token": as_nobody,
    "wrong model": lambda: whole(model="no-such-model"),
    "wrong tokens": lambda: whole(max_tokens="many"),
}
print(json.dumps({name: outcome(ask, anthropic.AnthropicError) for name, ask in questions.items()}))
