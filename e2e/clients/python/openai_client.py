"""OpenAI's client for Python."""

from case import QUESTION

NAME, PACKAGE = "openai (Python)", "openai"


def connect(BASE_URL, TOKEN, once):
    # docs: begin
    from openai import OpenAI

    client = OpenAI(base_url=BASE_URL, api_key=TOKEN)
    # docs: end
    return client.with_options(max_retries=0) if once else client


def messages():
    return [{"role": "user", "content": QUESTION}]


def chat(base_url, token, model, once=False):
    answer = connect(base_url, token, once).chat.completions.create(model=model, messages=messages())
    return answer.choices[0].message.content


def stream(base_url, token, model, once=False):
    chunks = connect(base_url, token, once).chat.completions.create(model=model, messages=messages(), stream=True)
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
