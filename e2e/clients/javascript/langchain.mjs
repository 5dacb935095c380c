// LangChain.js's chat model for OpenAI's API.

// docs: begin
import { ChatOpenAI } from '@langchain/openai';
// docs: end

const connect = (BASE_URL, TOKEN, MODEL, options) => {
  // docs: begin
  const llm = new ChatOpenAI({ model: MODEL, apiKey: TOKEN, configuration: { baseURL: BASE_URL } });
  // docs: end
  return options ? new ChatOpenAI({ model: MODEL, apiKey: TOKEN, configuration: { baseURL: BASE_URL }, ...options }) : llm;
};

export const NAME = '@langchain/openai';
export const PACKAGE = '@langchain/openai';

const question = 'Name three colours.';

export const chat = async (base, token, model, options) =>
  (await connect(base, token, model, options).invoke(question)).content;

export const stream = async (base, token, model) => {
  let text = '';
  for await (const chunk of await connect(base, token, model).stream(question)) text += chunk.content;
  return text;
};
