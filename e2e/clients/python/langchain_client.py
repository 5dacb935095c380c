"""LangChain's chat model for OpenAI's API."""

from case import QUESTION

NAME, PACKAGE = "langchain-openai", "langchain-openai"


def connect(BASE_URL, TOKEN, MODEL, once):
    # docs: begin
    from langchain_openai import ChatOpenAI

    llm = ChatOpenAI(base_url=BASE_URL, api_key=TOKEN, model=MODEL)
    # docs: end
    return ChatOpenAI(base_url=BASE_URL, api_key=TOKEN, model=MODEL, max_retries=0) if once else llm


def chat(base_url, token, model, once=False):
    return connect(base_url, token, model, once).invoke(QUESTION).content


def stream(base_url, token, model, once=False):
    return "".join(chunk.content for chunk in connect(base_url, token, model, once).stream(QUESTION))
