// The official TypeScript SDK of the Model Context Protocol as a client of arp's MCP server.
//
//   node client.js http URL TOKEN
//   node client.js stdio PROGRAM ARGUMENT...
//
// Goes through all tools and says on standard output what the test has to do meanwhile: `allow`, `deny`, `two`, `void`.
// Exits with 0 when everything was as it has to be. PROJECT names the directory for its session.

import assert from 'node:assert/strict';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const PATIENCE_MS = 30_000;
const [way, target, ...rest] = process.argv.slice(2);

function transport() {
  if (way === 'stdio') {
    return new StdioClientTransport({ command: target, args: rest, env: { ...process.env } });
  }
  const headers = { Authorization: `Bearer ${rest[0]}`, 'X-ARP-Session': 'the-asking-one' };
  return new StreamableHTTPClientTransport(new URL(target), { requestInit: { headers } });
}

const client = new Client({ name: 'foreign', version: '1.0.0' });
await client.connect(transport());
assert.equal(client.getServerVersion().name, 'arpc');

/** Calls a tool; its answer is JSON in one text. */
async function call(name, args, options) {
  const result = await client.callTool({ name, arguments: args }, undefined, options);
  assert.equal(result.content.length, 1);
  assert.equal(result.content[0].type, 'text');
  if (result.isError) {
    return { failed: result.content[0].text };
  }
  return JSON.parse(result.content[0].text);
}

const { tools } = await client.listTools();
assert.deepEqual(tools.map((tool) => tool.name).sort(), [
  'approval_prompt',
  'cancel_session',
  'list_sessions',
  'read_session',
  'send_message',
  'start_session',
]);
for (const tool of tools) {
  assert.equal(tool.inputSchema.type, 'object');
  assert.ok(tool.description.length > 20);
}

/** Reads a session until it has ended this many turns. */
async function turns(id, wanted) {
  const until = Date.now() + PATIENCE_MS;
  const events = [];
  let since = 0;
  for (;;) {
    const page = await call('read_session', { session_id: id, since });
    events.push(...page.events);
    since = page.next_since;
    const ended = events.filter((event) => event.type === 'turn_end').length;
    if (ended >= wanted && page.session.status === 'idle') {
      return events;
    }
    assert.ok(Date.now() < until, `turn ${wanted} did not end: ${JSON.stringify(page.session)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const said = (events, text) => events.some((event) => event.type === 'text' && event.text.includes(text));

const started = await call('start_session', {
  prompt: 'say over mcp',
  executor: 'claude',
  project_path: process.env.PROJECT,
});
const id = started.session_id;
assert.equal(started.session.origin, 'mcp');
assert.equal(started.session.permission_mode, 'default');
assert.ok(said(await turns(id, 1), 'over mcp'));
const listed = await call('list_sessions', { live: true });
assert.ok(listed.sessions.some((session) => session.id === id));
const sent = await call('send_message', { session_id: id, text: 'say and again' });
assert.ok(sent.message.id);
assert.ok(said(await turns(id, 2), 'and again'));
const cancelled = await call('cancel_session', { session_id: id });
assert.equal(cancelled.session.status, 'cancelled');
assert.match((await call('read_session', { session_id: 'nobody' })).failed, /not_found/);
assert.match((await call('start_session', {})).failed, /prompt/);
assert.ok((await call('no_such_tool', {}).catch((error) => ({ failed: String(error) }))).failed);

// What Claude's --permission-prompt-tool asks, and the answers in its form.
const ask = (command, options) =>
  call('approval_prompt', { tool_name: 'Bash', input: { command }, tool_use_id: 'toolu_1' }, options);
let lives = 0;
// Decided once it was heard: what comes in one piece with the answer, the SDK takes for late and drops.
const heard = () => { if ((lives += 1) === 1) console.log('allow'); };
const asked = ask('touch a', { onprogress: heard, resetTimeoutOnProgress: true });
assert.deepEqual(await asked, { behavior: 'allow', updatedInput: { command: 'touch b' } });
assert.ok(lives > 0, 'it was told that somebody is being asked');
const refused = ask('rm -rf /');
console.log('deny');
assert.deepEqual(await refused, { behavior: 'deny', message: 'not on my phone' });
const both = Promise.all([ask('touch 1'), ask('touch 2')]);
console.log('two');
assert.deepEqual(await both, [
  { behavior: 'allow', updatedInput: { command: 'touch 1' } },
  { behavior: 'deny', message: 'only one' },
]);
const abort = new AbortController();
const given_up = ask('touch c', { signal: abort.signal }).catch((error) => error);
console.log('void');
process.stdin.once('data', () => abort.abort('changed my mind'));
assert.ok((await given_up) !== undefined);
console.log('done');
await new Promise((resolve) => process.stdin.once('end', resolve));
await client.close();
