// Talks to the model endpoint with the official client, as a user's program
// would, and prints what came of it as JSON: chat.mjs BASE_URL TOKEN MODEL.

import dns from 'node:dns';
import OpenAI from 'openai';

// Names below localhost are this machine; not every system knows it.
const lookup = dns.lookup;
dns.lookup = (host, ...rest) => lookup(host.endsWith('.localhost') ? '127.0.0.1' : host, ...rest);

const [baseURL, apiKey, model] = process.argv.slice(2);
const messages = [{ role: 'user', content: 'Name three colours.' }];
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 60_000 });

const models = [];
for await (const m of client.models.list()) models.push(m.id);

const whole = await client.chat.completions.create({ model, messages, max_tokens: 32, temperature: 0 });

const arrivals = [];
const pieces = [];
const stream = await client.chat.completions.create({ model, messages, max_tokens: 32, temperature: 0, stream: true });
for await (const chunk of stream) {
  arrivals.push(performance.now());
  const content = chunk.choices[0]?.delta?.content;
  if (content) pieces.push(content);
}

const failure = async (client, model) => {
  try {
    await client.chat.completions.create({ model, messages });
    return 'accepted';
  } catch (error) {
    return error.constructor.name;
  }
};

console.log(
  JSON.stringify({
    models,
    answer: whole.choices[0].message.content,
    tokens: whole.usage.completion_tokens,
    streamed: pieces.join(''),
    pieces: pieces.length,
    spread: (arrivals.at(-1) - arrivals[0]) / 1000,
    wrong_token: await failure(new OpenAI({ baseURL, apiKey: 'wrong', maxRetries: 0 }), model),
    wrong_model: await failure(client, 'no-such-model'),
  }),
);
