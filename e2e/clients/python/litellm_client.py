"""LiteLLM, which takes the model's name after the name of an API."""

import litellm
from case import QUESTION

NAME, PACKAGE = "litellm", "litellm"
litellm.suppress_debug_info = True


def complete(BASE_URL, TOKEN, MODEL, **more):
    # docs: begin
    from litellm import completion

    place = {"model": "openai/" + MODEL, "api_base": BASE_URL, "api_key": TOKEN}
    # completion(**place, messages=[...])
    # docs: end
    return completion(**place, messages=[{"role": "user", "content": QUESTION}], **more)


def chat(base_url, token, model, once=False):
    more = {"max_retries": 0} if once else {}
    return complete(base_url, token, model, **more).choices[0].message.content


def stream(base_url, token, model):
    return "".join(c.choices[0].delta.content or "" for c in complete(base_url, token, model, stream=True))
