//! What the pretended agent does with a prompt. The words of a prompt choose: `say X`, `run X`, `edit`, `ask`,
//! `hostile`, `fail`, `slow`, `code`, `list`, `loose`, `table`, `prose`, `output`, `plan`, `twice`, `later`, `beside`, `files`, `write`, `mcp`; anything else is a short helpful turn.

import type { FilePreview } from '../../src/model/events';
import type { MockSession, Script } from './edge.ts';

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
let next = 1;
const id = (): string => `x${next++}`;

/** Streams a text in small pieces. */
export async function stream(session: MockSession, text: string, pause = 12, kind: 'text' | 'thinking' = 'text'): Promise<void> {
  const block = id();
  for (const piece of text.match(/[\s\S]{1,9}/g) ?? []) {
    session.push({ type: kind, id: block, text: piece, delta: true });
    await sleep(pause);
  }
  session.push({ type: kind, id: block, text, delta: false });
}

/** A long beginning at once, then a hundred pieces a second: several times what the fastest models say. */
async function grow(session: MockSession, count: number, piece: (n: number) => string, before: string, after: string): Promise<void> {
  const first = Math.floor(count / 2);
  session.push({ type: 'text', id: 'grow', text: before + Array.from({ length: first }, (_, n) => piece(n + 1)).join(''), delta: true });
  for (let n = first + 1; n <= count; n++) {
    session.push({ type: 'text', id: 'grow', text: piece(n), delta: true });
    await sleep(10);
  }
  session.push({ type: 'text', id: 'grow', text: after, delta: true });
}

export const DIFF = `@@ -12,7 +12,11 @@ export async function login(form: Form) {
   const user = await users.find(form.email);
-  if (user.password == form.password) {
+  if (!user) return fail('unknown user');
+  const valid = await verify(user.hash, form.password);
+  if (valid) {
     session.start(user);
+    audit.note('login', user.id);
     return redirect('/home');
   }
`;

/** Everything a hostile agent might try; \`window.pwned\` tells whether any of it ran. */
export const HOSTILE = `Here is your summary <script>window.pwned=1</script><img src=x onerror="window.pwned=2">

<iframe src="javascript:parent.pwned=3"></iframe>
<svg><a xlink:href="javascript:pwned=4"><text>x</text></a></svg>

[a link](javascript:window.pwned=5) and [another](  JaVaScRiPt:window.pwned=6) and [data](data:text/html,<script>parent.pwned=7</script>)

![picture](https://evil.example/track.png) <a href="https://good.example" onclick="window.pwned=8">ok</a>

\`\`\`"><img src=x onerror=window.pwned=9>
</code></pre><script>window.pwned=10</script>
\`\`\`

| a | b |
|---|---|
| <b onmouseover=window.pwned=11>x</b> | <style>body{display:none}</style> |

<form action="https://evil.example"><input name=token><button>Log in</button></form>

https://good.example/path is a plain link.`;

/** A command with everything that can stand beside it. */
export const BESIDE = { cwd: '/home/me/app/packages/server', timeout: 120_000, run_in_background: true, dangerouslyDisableSandbox: true, network: { host: 'registry.example', protocol: 'https' } };

/** A change with its true place in the file, long paths and an overwrite. */
export const PREVIEW: FilePreview[] = [
  { path: '/home/me/app/packages/server/src/authentication/handlers/very-long-directory/login.ts', action: 'edit', outside_project: false, diff: DIFF.replace('@@ -12,7 +12,11 @@', '@@ -412,7 +412,11 @@'), problem: null },
  { path: '/home/me/app/config/settings.json', action: 'overwrite', outside_project: false, diff: '@@ -1,4 +1,3 @@\n {\n-  "audit": true,\n-  "level": 2\n+  "level": 9\n }\n', problem: null },
  { path: '/home/me/.profile', action: 'overwrite', outside_project: true, diff: null, problem: 'outside_project' },
];

async function tool(session: MockSession, command: string, beside: object = {}): Promise<void> {
  const call = id();
  session.push({ type: 'tool_call', id: call, name: 'Bash', kind: 'command', title: command, input: { command, description: 'Run it', ...beside } });
  const decision = await session.ask({
    tool_call_id: call, tool_name: 'Bash', kind: 'command', title: command, reason: 'The change has to be tried before it is kept.', input: { command, ...beside }, can_allow_session: true, can_edit: true,
    session_grants: [{ type: 'tool', tool: 'Bash', pattern: `${command.split(' ', 2).join(' ')}:*` }],
  });
  if (decision.decision === 'deny') {
    session.push({ type: 'tool_result', id: call, output: decision.message ?? 'Denied', delta: false, is_error: true });
    await stream(session, `Understood${decision.message ? `: ${decision.message}` : ''}. I leave it.`);
    return;
  }
  const ran = String(decision.updated_input?.['command'] ?? command);
  session.push({ type: 'tool_result', id: call, output: `$ ${ran}\n`, delta: true, is_error: false });
  await sleep(120);
  session.push({ type: 'tool_result', id: call, output: `$ ${ran}\nok\n`, delta: false, is_error: false, exit_code: 0 });
  await stream(session, `Ran \`${ran}\`: it went well.`);
}

export const script: Script = async (session, prompt, stop) => {
  let stopped = false;
  void stop.then(() => { stopped = true; });
  session.push({ type: 'init', agent_session_id: session.object.agent_session_id, model: session.object.model, cwd: session.object.project_path, permission_mode: 'default' });
  await sleep(40);
  const [, word = '', rest = ''] = /^(\w+)\s*([\s\S]*)$/.exec(prompt) ?? [];
  switch (word) {
    case 'say':
      await stream(session, rest);
      break;
    case 'run':
      await tool(session, rest || 'npm test');
      break;
    case 'twice':
      // The second question comes the moment the first is answered.
      await tool(session, 'npm test');
      await tool(session, 'rm -rf build');
      break;
    case 'later':
      // The question comes while somebody writes.
      await sleep(Number(rest) || 1_500);
      await tool(session, 'rm -rf build');
      break;
    case 'beside':
      await tool(session, rest || 'npm install left-pad', BESIDE);
      break;
    case 'files': {
      const call = id();
      const changes = PREVIEW.map(({ path }) => ({ path, diff: '@@\n+told\n' }));
      session.push({ type: 'tool_call', id: call, name: 'fileChange', kind: 'edit', title: PREVIEW[0]?.path ?? '', input: {}, changes });
      const { decision } = await session.ask({ tool_call_id: call, tool_name: 'fileChange', kind: 'edit', title: 'files', reason: null, input: { changes, grantRoot: '/home/me' }, changes, files: PREVIEW, can_allow_session: true, session_grants: [{ type: 'same_files' }], can_edit: false });
      session.push({ type: 'tool_result', id: call, output: decision, delta: false, is_error: decision === 'deny' });
      break;
    }
    case 'write': {
      const call = id();
      const input = { file_path: '/home/me/app/notes.md', content: '# Notes\n\nOne.\nTwo.\n' };
      const changes = [{ path: input.file_path, diff: '@@ -0,0 +1,4 @@\n+# Notes\n+\n+One.\n+Two.\n' }];
      const files: FilePreview[] = [{ path: input.file_path, action: 'overwrite', outside_project: false, diff: '@@ -1,4 +1,4 @@\n # Notes\n \n-Keep this.\n+One.\n Two.\n', problem: null }];
      session.push({ type: 'tool_call', id: call, name: 'Write', kind: 'edit', title: input.file_path, input, changes });
      const { updated_input } = await session.ask({ tool_call_id: call, tool_name: 'Write', kind: 'edit', title: input.file_path, reason: null, input, changes, files, can_allow_session: true, session_grants: [{ type: 'mode', mode: 'acceptEdits' }], can_edit: true });
      session.push({ type: 'tool_result', id: call, output: 'written', delta: false, is_error: false });
      await stream(session, `Written: ${JSON.stringify(updated_input ?? input)}`);
      break;
    }
    case 'mcp': {
      const { decision } = await session.ask({ tool_call_id: null, tool_name: 'mcp__payments__transfer', kind: 'mcp', title: 'transfer (payments)', reason: null, input: { amount: 250, to: 'Zoe\u202egnp.exe', urgent: true }, can_allow_session: true, session_grants: [{ type: 'tool', tool: 'mcp__payments__transfer' }], can_edit: true });
      await stream(session, `It was ${decision}.`);
      break;
    }
    case 'plan': {
      session.push({ type: 'init', agent_session_id: session.object.agent_session_id, model: session.object.model, cwd: session.object.project_path, permission_mode: 'plan' });
      const decision = await session.ask({
        tool_call_id: null, tool_name: 'ExitPlanMode', kind: 'plan', title: 'Make the login safe', reason: null, can_allow_session: false, can_edit: true, modes: ['acceptEdits', 'default'],
        input: { plan: '# Make the login safe\n\n1. Compare in constant time.\n2. Write the test first.\n3. Note each login.', allowedPrompts: [{ tool: 'Bash', prompt: 'run the tests' }] },
      });
      // The agent says itself which mode it goes on in.
      if (decision.decision === 'allow') session.push({ type: 'init', agent_session_id: session.object.agent_session_id, model: session.object.model, cwd: session.object.project_path, permission_mode: decision.permission_mode ?? 'default' });
      await stream(session, decision.decision === 'allow' ? `I go on in mode ${decision.permission_mode ?? 'default'}.` : `I plan on${decision.message ? `: ${decision.message}` : ''}.`);
      break;
    }
    case 'edit': {
      const call = id();
      const changes = [{ path: 'src/login.ts', diff: DIFF }];
      session.push({ type: 'tool_call', id: call, name: 'Edit', kind: 'edit', title: 'src/login.ts', input: { file_path: 'src/login.ts' }, changes });
      const { decision } = await session.ask({ tool_call_id: call, tool_name: 'Edit', kind: 'edit', title: 'src/login.ts', reason: null, input: { file_path: 'src/login.ts' }, changes, files: [{ path: 'src/login.ts', action: 'edit', outside_project: false, diff: DIFF, problem: null }], can_allow_session: true, session_grants: [{ type: 'mode', mode: 'acceptEdits' }], can_edit: false });
      session.push({ type: 'tool_result', id: call, output: decision === 'allow' ? 'written' : 'Denied', delta: false, is_error: decision === 'deny' });
      await stream(session, 'That is all.');
      break;
    }
    case 'ask': {
      const { answers } = await session.ask({
        tool_call_id: null, tool_name: 'AskUserQuestion', kind: 'question', title: 'Which database?', reason: null, input: {}, can_allow_session: false, can_edit: false,
        questions: [{ text: 'Which database should it use?', header: 'Database', options: ['SQLite', 'PostgreSQL', 'None'], descriptions: ['One file, nothing to run', 'A server of its own; what production uses', ''], multiple: false }],
      });
      await stream(session, `You chose ${Object.values(answers ?? {}).join()}.`);
      break;
    }
    case 'hostile':
      session.push({ type: 'text', id: id(), text: HOSTILE, delta: false });
      session.push({ type: 'tool_call', id: id(), name: '<img src=x onerror=window.pwned=12>', kind: 'other', title: '<script>window.pwned=13</script>', input: { a: '<b>x</b>' } });
      break;
    case 'fail':
      session.push({ type: 'error', message: 'API Error: 529 overloaded. Trying again (2 of 10)', retrying: true });
      await sleep(100);
      throw new Error('API Error: 401 The key was not accepted');
    case 'slow':
      for (let n = 1; n <= 4_000 && !stopped; n++) {
        session.push({ type: 'text', id: 'slow', text: `${n} `, delta: true });
        await sleep(25);
      }
      break;
    case 'burst': {
      const count = Number(rest) || 1000;
      for (let n = 1; n <= count; n++) {
        session.push({ type: 'text', id: 'burst', text: `${n}\n`, delta: true });
        if (n % 10 === 0) await sleep(4);
      }
      break;
    }
    case 'code':
      await grow(session, Number(rest) || 1000, (n) => `export const value${n} = compute(${n}, "text ${n}"); // line ${n}\n`, 'Here it is:\n\n```ts\n', '```\n\nThat was the code.');
      break;
    case 'list':
      await grow(session, Number(rest) || 1000, (n) => `- **Item ${n}** of the list, with \`code ${n}\` and some words\n`, 'Here it is:\n\n', '\n\nThat was the list.');
      break;
    case 'loose':
      await grow(session, Number(rest) || 1000, (n) => `- **Item ${n}** of the list, with \`code ${n}\` and some words\n\n`, 'Here it is:\n\n', 'That was the list.');
      break;
    case 'table':
      await grow(session, Number(rest) || 1000, (n) => `| ${n} | name of ${n} | **${n * 7}** | some words |\n`, 'Here it is:\n\n| n | name | value | more |\n|---|---|--:|---|\n', '\n\nThat was the table.');
      break;
    case 'prose':
      await grow(session, Number(rest) || 1000, (n) => `Sentence ${n} of a paragraph that does not end, with **some** words more. `, 'Here it is:\n\n', '\n\nThat was it.');
      break;
    case 'output': {
      session.push({ type: 'tool_call', id: 'out', name: 'Bash', kind: 'command', title: 'make all', input: { command: 'make all' } });
      const lines = (from: number, to: number): string => Array.from({ length: to - from }, (_, n) => `\u001b[32mok\u001b[0m ${from + n} compiled part ${from + n} of all of it\n`).join('');
      const count = Number(rest) || 1000;
      session.push({ type: 'tool_result', id: 'out', output: lines(0, count / 2), delta: true, is_error: false });
      for (let n = count / 2; n < count && !stopped; n += 6) {
        session.push({ type: 'tool_result', id: 'out', output: lines(n, n + 6), delta: true, is_error: false });
        await sleep(10);
      }
      break;
    }
    case 'shapes': {
      session.push({ type: 'tool_call', id: 'bar', name: 'Bash', kind: 'command', title: 'npm install', input: { command: 'npm install' } });
      session.push({ type: 'tool_result', id: 'bar', output: '\u001b[32m 10%\r 55%\r100%\u001b[0m\nok\n', delta: false, is_error: false, exit_code: 0 });
      const columns = Array.from({ length: 14 }, (_, index) => `column ${index + 1} of many`);
      session.push({ type: 'text', id: 'shape', text: `| ${columns.join(' | ')} |\n|${'---|'.repeat(14)}\n| ${columns.join(' | ')} |\n\nturned \u202e around\nand straight again`, delta: false });
      break;
    }
    default:
      await stream(session, `Let me look at what "${prompt.slice(0, 40)}" needs.`, 8, 'thinking');
      await stream(session, 'I had a look around. The project builds and its tests pass; tell me what to change first.');
  }
  session.push({ type: 'usage', input_tokens: 18_240, cached_input_tokens: 15_900, output_tokens: 612, cost_usd: 0.0841 });
};
