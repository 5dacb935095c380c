"""Anthropic's client for Python. Its base URL ends before /v1."""

from case import QUESTION

NAME, PACKAGE = "anthropic (Python)", "anthropic"


def connect(BASE_URL, TOKEN, once):
    # docs: begin
    from anthropic import Anthropic

    client = Anthropic(base_url=BASE_URL, api_key=TOKEN)
    # docs: end
    return client.with_options(max_retries=0) if once else client


def ask(model):
    return {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": QUESTION}]}


def chat(base_url, token, model, once=False):
    return connect(base_url, token, once).messages.create(**ask(model)).content[0].text


def stream(base_url, token, model, once=False):
    with connect(base_url, token, once).messages.stream(**ask(model)) as events:
        return "".join(events.text_stream)
