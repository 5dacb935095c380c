"""OpenAI's Agents SDK."""

import asyncio

from agents import Runner, set_tracing_disabled
from case import QUESTION

NAME, PACKAGE = "openai-agents", "openai-agents"
set_tracing_disabled(True)


def connect(BASE_URL, TOKEN, MODEL, once):
    # docs: begin
    from agents import Agent, OpenAIChatCompletionsModel
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=BASE_URL, api_key=TOKEN)
    agent = Agent(name="Colours", model=OpenAIChatCompletionsModel(model=MODEL, openai_client=client))
    # docs: end
    if once:
        client = client.with_options(max_retries=0)
        agent = Agent(name="Colours", model=OpenAIChatCompletionsModel(model=MODEL, openai_client=client))
    return agent


def chat(base_url, token, model, once=False):
    async def work():
        return (await Runner.run(connect(base_url, token, model, once), QUESTION)).final_output

    return asyncio.run(work())


def stream(base_url, token, model, once=False):
    async def work():
        result = Runner.run_streamed(connect(base_url, token, model, once), QUESTION)
        async for _ in result.stream_events():
            pass
        return result.final_output

    return asyncio.run(work())
