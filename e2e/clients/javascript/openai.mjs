// OpenAI's client for JavaScript.

// docs: begin
import OpenAI from 'openai';
// docs: end

const connect = (BASE_URL, TOKEN) => {
  // docs: begin
  const client = new OpenAI({ baseURL: BASE_URL, apiKey: TOKEN });
  // docs: end
  return client;
};

export const NAME = 'openai (JavaScript)';
export const PACKAGE = 'openai';

const messages = [{ role: 'user', content: 'Name three colours.' }];

export const chat = async (base, token, model, options) =>
  (await connect(base, token).chat.completions.create({ model, messages }, options)).choices[0].message.content;

export const stream = async (base, token, model) => {
  let text = '';
  for await (const chunk of await connect(base, token).chat.completions.create({ model, messages, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? '';
  }
  return text;
};
