"""Talks to the model endpoint with the official client, as a user's program
would, and prints what came of it as JSON: chat.py BASE_URL TOKEN MODEL."""

import json
import time

import openai
from place import base_url, model, token

question = [{"role": "user", "content": "Name three colours."}]
client = openai.OpenAI(base_url=base_url, api_key=token, max_retries=0, timeout=60)

models = [m.id for m in client.models.list()]

whole = client.chat.completions.create(model=model, messages=question, max_tokens=32, temperature=0)

arrivals, pieces = [], []
with client.chat.completions.create(
    model=model, messages=question, max_tokens=32, temperature=0, stream=True
) as stream:
    for chunk in stream:
        arrivals.append(time.monotonic())
        if chunk.choices and chunk.choices[0].delta.content:
            pieces.append(chunk.choices[0].delta.content)

try:
    openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0).chat.completions.create(
        model=model, messages=question
    )
    wrong_token = "accepted"
except openai.OpenAIError as error:
    wrong_token = type(error).__name__

try:
    client.chat.completions.create(model="no-such-model", messages=question)
    wrong_model = "accepted"
except openai.OpenAIError as error:
    wrong_model = type(error).__name__

print(
    json.dumps(
        {
            "models": models,
            "answer": whole.choices[0].message.content,
            "tokens": whole.usage.completion_tokens,
            "streamed": "".join(pieces),
            "pieces": len(pieces),
            "spread": arrivals[-1] - arrivals[0],
            "wrong_token": wrong_token,
            "wrong_model": wrong_model,
        }
    )
)
