// Anthropic's client for JavaScript. Its base URL ends before /v1.

// docs: begin
import Anthropic from '@anthropic-ai/sdk';
// docs: end

const connect = (BASE_URL, TOKEN) => {
  // docs: begin
  const client = new Anthropic({ baseURL: BASE_URL, apiKey: TOKEN });
  // docs: end
  return client;
};

export const NAME = '@anthropic-ai/sdk';
export const PACKAGE = '@anthropic-ai/sdk';

const ask = (model) => ({ model, max_tokens: 50, messages: [{ role: 'user', content: 'Name three colours.' }] });

export const chat = async (base, token, model, options) =>
  (await connect(base, token).messages.create(ask(model), options)).content[0].text;

export const stream = async (base, token, model) => {
  let text = '';
  for await (const event of await connect(base, token).messages.create({ ...ask(model), stream: true })) {
    if (event.type === 'content_block_delta') text += event.delta.text;
  }
  return text;
};
