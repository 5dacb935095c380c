// Vercel's AI SDK with its provider for servers like OpenAI's.

// docs: begin
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, streamText } from 'ai';
// docs: end

export const NAME = 'ai + @ai-sdk/openai-compatible';
export const PACKAGE = 'ai';

const connect = (BASE_URL, TOKEN, MODEL) => {
  // docs: begin
  const model = createOpenAICompatible({ name: 'dstack', baseURL: BASE_URL, apiKey: TOKEN })(MODEL);
  // docs: end
  return model;
};

const ask = (base, token, model) => ({ model: connect(base, token, model), prompt: 'Name three colours.' });

export const chat = async (base, token, model, options) => (await generateText({ ...ask(base, token, model), ...options })).text;

// Errors of a stream reach only onError.
export const stream = async (base, token, model) => {
  let failure;
  const result = streamText({
    ...ask(base, token, model),
    onError: ({ error }) => {
      failure ??= error;
    },
  });
  let text = '';
  for await (const piece of result.textStream) text += piece;
  if (failure) throw failure instanceof Error ? failure : new OnError(failure);
  return text;
};

class OnError extends Error {
  constructor(value) {
    super(typeof value === 'string' ? value : JSON.stringify(value));
  }
}
