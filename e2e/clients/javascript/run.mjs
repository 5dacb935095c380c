// Puts every client of this folder through cases, and prints a line of JSON for
// each result: run.mjs CASES, where CASES is a JSON list.

import { readFileSync } from 'node:fs';

const names = ['openai', 'anthropic', 'ai-sdk', 'langchain'];

const cases = JSON.parse(process.argv[2]);
const clients = await Promise.all(names.map((name) => import(`./${name}.mjs`)));
console.log(JSON.stringify({ clients: clients.length }));

const versionOf = (name) => JSON.parse(readFileSync(new URL(`./node_modules/${name}/package.json`, import.meta.url))).version;

// Calls a client as a case says, up to `tries` times: the first call over a limit
// may be one that is not refused.
const callClient = async (client, test) => {
  let text;
  for (let i = 0; i < test.tries; i += 1) {
    text = await client[test.call](test.base_url, test.token, test.model, test.once ? { maxRetries: 0 } : undefined);
  }
  return text || '';
};

// Returns the text of an answer, or the class and status of an error and whether
// it has the gateway's message.
const outcome = async (client, test) => {
  try {
    return { text: await callClient(client, test) };
  } catch (error) {
    const status = error.status ?? error.statusCode;
    return {
      error: error.constructor.name,
      status: typeof status === 'number' ? status : 0,
      says: `${error.message} ${error.responseBody ?? ''}`.includes(test.says),
    };
  }
};

const run = async (client, test) => {
  const result = await outcome(client, test);
  console.log(JSON.stringify({ client: client.NAME, version: versionOf(client.PACKAGE), case: test.name, ...result }));
};

await Promise.all(clients.flatMap((client) => cases.map((test) => run(client, test))));
