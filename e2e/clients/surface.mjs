// Makes the calls of surface.py with the official client for JavaScript:
// surface.mjs BASE_URL TOKEN MODEL.

import dns from 'node:dns';
import OpenAI from 'openai';

// Resolves names below localhost to this machine; not every system does.
const lookup = dns.lookup;
dns.lookup = (host, ...rest) => lookup(host.endsWith('.localhost') ? '127.0.0.1' : host, ...rest);

const [baseURL, apiKey, model] = process.argv.slice(2);
const question = [{ role: 'user', content: 'Name three colours.' }];
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 60_000 });
const greedy = { model, temperature: 0, cache_prompt: false }; // the same each time, in llama.cpp's words

const buildResult = (texts, ends, usage, more) => ({
  texts,
  ends,
  ...(usage ? { prompt: usage.prompt_tokens, tokens: usage.completion_tokens } : {}),
  ...more,
});

const chat = async (more) => {
  const a = await client.chat.completions.create({ ...greedy, messages: question, max_tokens: 24, ...more });
  const scores = a.choices[0].logprobs?.content;
  const extra = scores && {
    scored: scores.map((t) => t.token),
    top: scores.map((t) => t.top_logprobs.length),
    below_zero: scores.every((t) => t.logprob <= 0),
  };
  return buildResult(a.choices.map((c) => c.message.content), a.choices.map((c) => c.finish_reason), a.usage, extra);
};

// Returns the joined text of each choice of a stream, and its usage.
const collect = async (stream, text) => {
  const texts = [];
  const ends = [];
  const scored = [];
  let pieces = 0;
  let usage;
  let after = false;
  for await (const chunk of stream) {
    after = chunk.choices.length === 0;
    usage = chunk.usage ?? usage;
    for (const c of chunk.choices) {
      texts[c.index] ??= '';
      ends[c.index] ??= null;
      const piece = text(c);
      if (piece) {
        texts[c.index] += piece;
        pieces += 1;
      }
      if (c.finish_reason) ends[c.index] = c.finish_reason;
      scored.push(...(c.logprobs?.content ?? []).map((t) => t.token));
    }
  }
  return buildResult(texts, ends, usage, { pieces, usage_last: after, ...(scored.length ? { scored } : {}) });
};

const chatStream = async (more) =>
  collect(
    await client.chat.completions.create({ ...greedy, messages: question, max_tokens: 24, stream: true, ...more }),
    (c) => c.delta.content,
  );

const text = async (more) => {
  const a = await client.completions.create({ ...greedy, prompt: 'Once upon a time', max_tokens: 12, ...more });
  return buildResult(a.choices.map((c) => c.text), a.choices.map((c) => c.finish_reason), a.usage);
};

const textStream = async (more) =>
  collect(
    await client.completions.create({ ...greedy, prompt: 'Once upon a time', max_tokens: 12, stream: true, ...more }),
    (c) => c.text,
  );

// A long stream is left after its third piece. The model's one slot must be
// free for the next question, long before that stream would have ended.
const left = async () => {
  const long = [{ role: 'user', content: 'Write a very long story about the sea.' }];
  let pieces = 0;
  for await (const chunk of await client.chat.completions.create({ ...greedy, messages: long, max_tokens: 1500, stream: true })) {
    if (chunk.choices[0]?.delta.content) pieces += 1;
    if (pieces === 3) break; // the client aborts the request
  }
  const began = performance.now();
  return { ...(await chat({ max_tokens: 1 })), pieces, seconds: (performance.now() - began) / 1000 };
};

const wrongToken = () =>
  new OpenAI({ baseURL, apiKey: 'wrong', maxRetries: 0 }).chat.completions.create({ model, messages: question }).then(() => undefined);

const listed = async () => {
  const texts = [];
  for await (const m of client.models.list()) texts.push(m.id);
  return { texts };
};

const schema = { type: 'object', properties: { colour: { enum: ['red', 'blue'] } }, required: ['colour'] };
const whole = await chat();
const stop = whole.texts[0].slice(9, 14); // begins and ends anywhere in the tokens
const counted = { stream_options: { include_usage: true } };
const questions = {
  list: listed,
  show: async () => ({ texts: [(await client.models.retrieve(model)).id] }),
  whole: () => whole,
  stream: () => chatStream(),
  'stream, counted': () => chatStream(counted),
  stop: () => chat({ stop }),
  'stop, a list': () => chat({ stop: ['no such text', stop] }),
  'stop in a stream': () => chatStream({ stop }),
  short: () => chat({ max_tokens: 3 }),
  'short, by the new name': () => chat({ max_tokens: undefined, max_completion_tokens: 3 }),
  'short stream': () => chatStream({ max_tokens: 3 }),
  seed: () => chat({ temperature: 1, seed: 5 }),
  'seed again': () => chat({ temperature: 1, seed: 5 }),
  top_p: () => chat({ temperature: 1, top_p: 0.01, seed: 6 }),
  logprobs: () => chat({ logprobs: true, top_logprobs: 2 }),
  'logprobs in a stream': () => chatStream({ logprobs: true, top_logprobs: 2 }),
  parts: () => chat({ messages: [{ role: 'user', content: [{ type: 'text', text: 'Name three colours.' }] }] }),
  dialogue: () =>
    chat({
      messages: [
        { role: 'system', content: 'Be brief.' },
        ...question,
        { role: 'assistant', content: 'Red.' },
        { role: 'user', content: 'Go on.' },
      ],
    }),
  schema: () => chat({ response_format: { type: 'json_schema', json_schema: { name: 'c', schema } } }),
  two: () => chat({ n: 2, temperature: 1, seed: 7 }),
  'two in a stream': () => chatStream({ n: 2, temperature: 1, seed: 7 }),
  text: () => text(),
  'text stream': () => textStream(),
  'text stream, counted': () => textStream(counted),
  texts: () => text({ prompt: ['Once upon a time', 'The sea is'] }),
  left,
  'wrong token': wrongToken,
  'wrong model': () => chat({ model: 'no-such-model' }),
  'wrong temperature': () => chat({ temperature: 'hot' }),
  'no messages': () => chat({ messages: [] }),
  presence_penalty: () => chat({ presence_penalty: 1 }),
  embeddings: async () => ({ texts: [String((await client.embeddings.create({ model, input: 'sea' })).data.length)] }),
  responses: async () => ({
    texts: [(await client.responses.create({ ...greedy, input: 'Name three colours.', max_output_tokens: 8 })).output_text],
  }),
};

const all = {};
for (const [name, ask] of Object.entries(questions)) {
  try {
    all[name] = (await ask()) ?? { error: 'accepted' };
  } catch (error) {
    all[name] = { error: error.constructor.name, status: error.status ?? 0, param: error.param ?? '' };
  }
}
console.log(JSON.stringify(all));
