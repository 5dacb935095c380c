"""Pydantic AI."""

import asyncio

from case import QUESTION
from openai import AsyncOpenAI

NAME, PACKAGE = "pydantic-ai", "pydantic-ai-slim"


def connect(BASE_URL, TOKEN, MODEL, once):
    # docs: begin
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    agent = Agent(OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=BASE_URL, api_key=TOKEN)))
    # docs: end
    if once:
        client = AsyncOpenAI(base_url=BASE_URL, api_key=TOKEN, max_retries=0)
        agent = Agent(OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client)))
    return agent


def chat(base_url, token, model, once=False):
    async def work():
        return (await connect(base_url, token, model, once).run(QUESTION)).output

    return asyncio.run(work())


def stream(base_url, token, model, once=False):
    async def work():
        async with connect(base_url, token, model, once).run_stream(QUESTION) as result:
            return "".join([piece async for piece in result.stream_text(delta=True)])

    return asyncio.run(work())
