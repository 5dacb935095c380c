"""Makes every call that OpenAI's client offers for language models, and prints
the results as JSON, by the name of the call: surface.py BASE_URL TOKEN MODEL.
surface.mjs makes the same calls."""

import json
import time

import openai
from place import base_url, model, outcome, token

question = [{"role": "user", "content": "Name three colours."}]
client = openai.OpenAI(base_url=base_url, api_key=token, max_retries=0, timeout=60)
greedy = {"temperature": 0, "extra_body": {"cache_prompt": False}}  # the same each time, in llama.cpp's words


def build_result(texts, ends, usage, **more):
    counted = {"prompt": usage.prompt_tokens, "tokens": usage.completion_tokens} if usage else {}
    return {"texts": texts, "ends": ends} | counted | more


def chat(**more):
    a = client.chat.completions.create(**{"model": model, "messages": question, "max_tokens": 24} | greedy | more)
    scores = a.choices[0].logprobs
    extra = {}
    if scores:
        extra["scored"] = [t.token for t in scores.content]
        extra["top"] = [len(t.top_logprobs) for t in scores.content]
        extra["below_zero"] = all(t.logprob <= 0 for t in scores.content)
    return build_result([c.message.content for c in a.choices], [c.finish_reason for c in a.choices], a.usage, **extra)


def collect(stream, text):
    """Returns the joined text of each choice of a stream, and its usage."""
    texts, ends, pieces, scored, usage, after = {}, {}, 0, [], None, False
    for chunk in stream:
        after = not chunk.choices
        usage = chunk.usage or usage
        for c in chunk.choices:
            texts.setdefault(c.index, "")
            if piece := text(c):
                texts[c.index] += piece
                pieces += 1
            if c.finish_reason:
                ends[c.index] = c.finish_reason
            if c.logprobs and hasattr(c.logprobs, "content"):
                scored += [t.token for t in c.logprobs.content or []]
    extra = {"scored": scored} if scored else {}
    return build_result([texts[i] for i in sorted(texts)], [ends.get(i) for i in sorted(texts)], usage, pieces=pieces, usage_last=after, **extra)


def chat_stream(**more):
    ask = {"model": model, "messages": question, "max_tokens": 24, "stream": True} | greedy | more
    with client.chat.completions.create(**ask) as stream:
        return collect(stream, lambda c: c.delta.content)


def text(**more):
    ask = {"model": model, "prompt": "Once upon a time", "max_tokens": 12} | greedy | more
    a = client.completions.create(**ask)
    return build_result([c.text for c in a.choices], [c.finish_reason for c in a.choices], a.usage)


def text_stream(**more):
    ask = {"model": model, "prompt": "Once upon a time", "max_tokens": 12, "stream": True} | greedy | more
    with client.completions.create(**ask) as stream:
        return collect(stream, lambda c: c.text)


def left():
    """A long stream is left after its third piece. The model's one slot must
    be free for the next question, long before that stream would have ended."""
    pieces = 0
    long = [{"role": "user", "content": "Write a very long story about the sea."}]
    with client.chat.completions.create(model=model, messages=long, max_tokens=1500, stream=True, **greedy) as stream:
        for chunk in stream:
            pieces += bool(chunk.choices and chunk.choices[0].delta.content)
            if pieces == 3:
                break
    began = time.monotonic()
    return chat(max_tokens=1) | {"pieces": pieces, "seconds": time.monotonic() - began}


def wrong_token():
    openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0).chat.completions.create(model=model, messages=question)


schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
whole = chat()
stop = whole["texts"][0][9:14]  # begins and ends anywhere in the tokens
questions = {
    "list": lambda: {"texts": [m.id for m in client.models.list()]},
    "show": lambda: {"texts": [client.models.retrieve(model).id]},
    "whole": lambda: whole,
    "stream": chat_stream,
    "stream, counted": lambda: chat_stream(stream_options={"include_usage": True}),
    "stop": lambda: chat(stop=stop),
    "stop, a list": lambda: chat(stop=["no such text", stop]),
    "stop in a stream": lambda: chat_stream(stop=stop),
    "short": lambda: chat(max_tokens=3),
    "short, by the new name": lambda: chat(max_tokens=openai.NOT_GIVEN, max_completion_tokens=3),
    "short stream": lambda: chat_stream(max_tokens=3),
    "seed": lambda: chat(temperature=1, seed=5),
    "seed again": lambda: chat(temperature=1, seed=5),
    "top_p": lambda: chat(temperature=1, top_p=0.01, seed=6),
    "logprobs": lambda: chat(logprobs=True, top_logprobs=2),
    "logprobs in a stream": lambda: chat_stream(logprobs=True, top_logprobs=2),
    "parts": lambda: chat(messages=[{"role": "user", "content": [{"type": "text", "text": "Name three colours."}]}]),
    "dialogue": lambda: chat(
        messages=[{"role": "system", "content": "Be brief."}, *question, {"role": "assistant", "content": "Red."}, {"role": "user", "content": "Go on."}]
    ),
    "schema": lambda: chat(response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": schema}}),
    "two": lambda: chat(n=2, temperature=1, seed=7),
    "two in a stream": lambda: chat_stream(n=2, temperature=1, seed=7),
    "text": text,
    "text stream": text_stream,
    "text stream, counted": lambda: text_stream(stream_options={"include_usage": True}),
    "texts": lambda: text(prompt=["Once upon a time", "The sea is"]),
    "left": left,
    "wrong token": wrong_token,
    "wrong model": lambda: chat(model="no-such-model"),
    "wrong temperature": lambda: chat(temperature="hot"),
    "no messages": lambda: chat(messages=[]),
    "presence_penalty": lambda: chat(presence_penalty=1),
    "embeddings": lambda: {"texts": [str(len(client.embeddings.create(model=model, input="sea").data))]},
    "responses": lambda: {"texts": [client.responses.create(model=model, input="Name three colours.", max_output_tokens=8, **greedy).output_text]},
}
print(json.dumps({name: outcome(ask, openai.OpenAIError) for name, ask in questions.items()}))
