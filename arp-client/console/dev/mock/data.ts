//! A machine with a life: sessions in every state, histories, files. Texts are made up.

import type { AgentEvent } from '../../src/model/events';
import { MockEdge, type MockSession } from './edge.ts';
import { DIFF, script } from './scripts.ts';

const ANSWER = `The login compared the password with \`==\`, so any two values that JavaScript thinks equal let you in. I changed three things:

1. **Unknown users** are turned away before anything is compared.
2. The password is checked with \`verify\`, in constant time.
3. Each login is noted in the audit log.

\`\`\`ts
const valid = await verify(user.hash, form.password);
if (valid) {
  session.start(user); // only now
  return redirect('/home');
}
\`\`\`

| Case | Before | Now |
|---|---|---|
| Unknown user | crash | 401 |
| Wrong password | 401 | 401 |

The tests are green. Shall I open a pull request?`;

/** A session that shows every kind of card. */
export function showcase(session: MockSession, start: number): void {
  let clock = start;
  const push = (event: AgentEvent, later = 900): void => session.push(event, new Date((clock += later)));
  push({ type: 'init', agent_session_id: '37be2c1d', model: 'opus', cwd: '/home/me/app', permission_mode: 'default' });
  push({ type: 'user_message', id: 'm1', text: 'Anyone can log in with the password "true". Find out why and fix it, with a test.' });
  push({ type: 'thinking', id: 'h1', text: 'The login handler must compare loosely somewhere. I will look at `src/login.ts` first.', delta: true });
  push({ type: 'thinking', id: 'h1', text: 'The login handler must compare loosely somewhere. I will look at `src/login.ts` first.', delta: false }, 6200);
  push({ type: 'plan', entries: [{ content: 'Find the comparison', status: 'completed' }, { content: 'Check the password in constant time', status: 'completed' }, { content: 'Write a test that fails before', status: 'in_progress' }, { content: 'Run all tests', status: 'pending' }] });
  push({ type: 'tool_call', id: 'c1', name: 'Grep', kind: 'search', title: 'password ==', input: { pattern: 'password ==', path: 'src' } });
  push({ type: 'tool_result', id: 'c1', output: 'src/login.ts:13:  if (user.password == form.password) {', delta: false, is_error: false }, 400);
  push({ type: 'tool_call', id: 'c2', name: 'Read', kind: 'read', title: 'src/login.ts', input: { file_path: 'src/login.ts' } });
  push({ type: 'tool_result', id: 'c2', output: '1  import { users } from "./users";', delta: false, is_error: false }, 200);
  push({ type: 'tool_call', id: 'c3', name: 'Task', kind: 'task', title: 'Look for other loose comparisons', input: { description: 'Look for other loose comparisons' } });
  push({ type: 'tool_call', id: 'c3a', name: 'Grep', kind: 'search', title: '[^=!]==[^=]', input: { pattern: '[^=!]==[^=]' }, parent: 'c3' });
  push({ type: 'tool_result', id: 'c3a', output: 'no matches', delta: false, is_error: false, parent: 'c3' });
  push({ type: 'tool_call', id: 'c3b', name: 'Read', kind: 'read', title: 'src/session.ts', input: {}, parent: 'c3' });
  push({ type: 'tool_result', id: 'c3b', output: 'ok', delta: false, is_error: false, parent: 'c3' });
  push({ type: 'text', id: 't0', text: 'No other place compares loosely.', delta: false, parent: 'c3' });
  push({ type: 'tool_result', id: 'c3', output: 'No other place compares loosely.', delta: false, is_error: false }, 5200);
  push({ type: 'text', id: 't1', text: 'It is the `==` in line 13. I will fix it and write the test first.', delta: false });
  push({ type: 'tool_call', id: 'c4', name: 'Edit', kind: 'edit', title: 'src/login.ts', input: { file_path: 'src/login.ts' }, changes: [{ path: 'src/login.ts', diff: DIFF }] });
  push({ type: 'tool_result', id: 'c4', output: 'ok', delta: false, is_error: false });
  push({ type: 'tool_call', id: 'c5', name: 'Bash', kind: 'command', title: 'npm test -- login', input: { command: 'npm test -- login' } });
  push({ type: 'tool_result', id: 'c5', output: 'FAIL test/login.test.ts\n  1 failed, 11 passed', delta: false, is_error: true, exit_code: 1 }, 7300);
  push({ type: 'tool_call', id: 'c6', name: 'Bash', kind: 'command', title: 'npm test -- login', input: { command: 'npm test -- login' } });
  push({ type: 'tool_result', id: 'c6', output: 'PASS test/login.test.ts\n  12 passed', delta: false, is_error: false, exit_code: 0 }, 6800);
  push({ type: 'plan', entries: [{ content: 'Find the comparison', status: 'completed' }, { content: 'Check the password in constant time', status: 'completed' }, { content: 'Write a test that fails before', status: 'completed' }, { content: 'Run all tests', status: 'completed' }] });
  push({ type: 'raw', data: { type: 'compact_boundary', note: 'something this console has no word for' } });
  push({ type: 'text', id: 't2', text: ANSWER, delta: false });
  push({ type: 'usage', input_tokens: 48_210, cached_input_tokens: 39_800, output_tokens: 2_118, cost_usd: 0.2143 });
  push({ type: 'turn_end', status: 'completed', duration_ms: 67_000 });
}

/** \`count\` events, of all kinds that scroll by. */
export function long(session: MockSession, count: number): void {
  const start = Date.now() - 3_600_000;
  for (let n = 1; session.log.length < count; n++) {
    const at = new Date(start + n * 300);
    if (n % 40 === 1) session.push({ type: 'user_message', id: `q${n}`, text: `Step ${n}: go on with the next part of the migration.` }, at);
    session.push({ type: 'tool_call', id: `k${n}`, name: 'Bash', kind: 'command', title: `cargo test part_${n}`, input: { command: `cargo test part_${n}` } }, at);
    session.push({ type: 'tool_result', id: `k${n}`, output: `part ${n}: ok`, delta: false, is_error: false, exit_code: 0 }, at);
    session.push({ type: 'text', id: `p${n}`, text: `Part **${n}** of the migration is done. ${'It moved its tables, checked the rows and wrote a note. '.repeat(1 + (n % 4))}`, delta: false }, at);
    if (n % 40 === 0) session.push({ type: 'turn_end', status: 'completed', duration_ms: 12_000 }, at);
  }
  session.log.length = count;
  session.object.last_seq = count;
}

const ago = (minutes: number): string => new Date(Date.now() - minutes * 60_000).toISOString();

/** The machine of the screenshots and tests, with its people's words in English or Chinese. */
export function liveMachine(name = 'studio', lang: 'en' | 'zh' = 'en'): MockEdge {
  const l = (en: string, zh: string): string => (lang === 'zh' ? zh : en);
  const edge = new MockEdge(script, name);
  const waits = edge.add({ id: 'needs', title: l('Clean up the build scripts', '清理构建脚本'), first_message: l('Clean up the build scripts', '清理构建脚本'), project_path: '/home/me/shop', status: 'running', turns: 1, turn: { number: 1, started_at: ago(3), prompt: '' } });
  waits.push({ type: 'user_message', id: 'm', text: l('Clean up the build scripts: one way to build, no leftovers.', '清理构建脚本：只留一种构建方式，不要残留。') }, new Date(Date.now() - 180_000));
  waits.push({ type: 'text', id: 'a', text: l('Three scripts do the same. I keep `scripts/build.sh` and remove the others; the output directories are stale and go too.', '有三个脚本做同样的事。我保留 `scripts/build.sh`，删除另外两个；过期的输出目录也一并清掉。'), delta: false }, new Date(Date.now() - 150_000));
  waits.push({ type: 'tool_call', id: 'k', name: 'Bash', kind: 'command', title: 'rm -rf dist .cache && git rm scripts/old-build.sh scripts/make.sh', input: {} }, new Date(Date.now() - 140_000));
  void waits.ask({
    tool_call_id: 'k', tool_name: 'Bash', kind: 'command', title: 'rm -rf dist .cache && git rm scripts/old-build.sh scripts/make.sh', reason: l('Remove the stale output and the two scripts that nothing calls.', '删除过期的输出，以及两个没有人调用的脚本。'),
    input: { command: 'rm -rf dist .cache &&\n  git rm scripts/old-build.sh scripts/make.sh', description: 'Remove leftovers' }, can_allow_session: true, can_edit: true, session_grants: [{ type: 'tool', tool: 'Bash', pattern: 'git rm:*' }],
  }, new Date(Date.now() - 139_000)).then(() => {
    waits.push({ type: 'tool_result', id: 'k', output: "rm 'scripts/old-build.sh'\nrm 'scripts/make.sh'", delta: false, is_error: false, exit_code: 0 });
    waits.push({ type: 'text', id: 'b', text: 'Done: one script is left.', delta: false });
    waits.push({ type: 'turn_end', status: 'completed', duration_ms: 190_000 });
    waits.changed({ status: 'idle', turn: null });
  });

  const editing = edge.add({ id: 'edits', executor: 'codex', model: 'gpt-5.5', title: l('Fix the login bug', '修复登录漏洞'), first_message: l('Fix the login bug', '修复登录漏洞'), status: 'running', turns: 1, turn: { number: 1, started_at: ago(6), prompt: '' } });
  editing.push({ type: 'user_message', id: 'm', text: l('Fix the login bug in src/login.ts', '修复 src/login.ts 里的登录漏洞') }, new Date(Date.now() - 360_000));
  editing.push({ type: 'text', id: 'a', text: l('The comparison is loose. This is the change I would make:', '这里的比较太宽松。我打算这样改：'), delta: false }, new Date(Date.now() - 340_000));
  const changes = [{ path: 'src/login.ts', diff: DIFF }];
  void editing.ask({ tool_call_id: null, tool_name: 'apply_patch', kind: 'edit', title: 'src/login.ts', reason: null, input: {}, changes, files: [{ path: 'src/login.ts', action: 'edit', outside_project: false, diff: DIFF, problem: null }], can_allow_session: true, can_edit: false, session_grants: [{ type: 'same_files' }] }, new Date(Date.now() - 330_000)).then(() => {
    editing.push({ type: 'turn_end', status: 'completed', duration_ms: 190_000 });
    editing.changed({ status: 'idle', turn: null });
  });

  const runs = edge.add({ id: 'runs', title: l('Move the shop to the new payment API', '把商城迁移到新的支付接口'), first_message: 'Move the shop', project_path: '/home/me/shop', status: 'running', turns: 4, activity: 'npm run test:payments', turn: { number: 4, started_at: ago(2), prompt: '' }, updated_at: ago(0) });
  runs.push({ type: 'user_message', id: 'm', text: 'Move the shop to the new payment API, one endpoint after the other.' }, new Date(Date.now() - 120_000));
  runs.push({ type: 'tool_call', id: 'k', name: 'Bash', kind: 'command', title: 'npm run test:payments', input: { command: 'npm run test:payments' } }, new Date(Date.now() - 20_000));
  runs.push({ type: 'tool_result', id: 'k', output: 'refund ... ok\ncapture ... ok\n', delta: true, is_error: false }, new Date(Date.now() - 5_000));

  const show = edge.add({ id: 'show', title: l('Login accepts the password "true"', '密码填 true 也能登录'), first_message: 'Anyone can log in', turns: 1, created_at: ago(60), usage: { input_tokens: 48_210, output_tokens: 2_118, cost_usd: 0.2143 } });
  showcase(show, Date.now() - 42 * 60_000);
  const failed = edge.add({ id: 'failed', executor: 'codex', model: 'gpt-5.5', title: l('Weekly dependency update', '每周更新依赖'), first_message: 'Update all dependencies', status: 'failed', project_path: '/home/me/notes', error: l('The model API refused the key (401).', '模型接口拒绝了密钥（401）。') });
  failed.push({ type: 'user_message', id: 'm', text: 'Update all dependencies and run the tests.' }, new Date(Date.now() - 26 * 3_600_000));
  failed.push({ type: 'error', message: l('The model API refused the key (401).', '模型接口拒绝了密钥（401）。'), retrying: false }, new Date(Date.now() - 26 * 3_600_000));
  failed.push({ type: 'turn_end', status: 'failed', message: l('The model API refused the key (401).', '模型接口拒绝了密钥（401）。') }, new Date(Date.now() - 26 * 3_600_000));
  const zh = edge.add({ id: 'zh', title: '给设置页加上深色模式', first_message: '给设置页加上深色模式', project_path: '/home/me/site', status: 'parked' });
  zh.push({ type: 'user_message', id: 'm', text: '给设置页加上深色模式，跟随系统。' }, new Date(Date.now() - 30 * 3_600_000));
  zh.push({ type: 'text', id: 'a', text: '已经完成：颜色都改成了 CSS 变量，`prefers-color-scheme` 决定默认值。', delta: false }, new Date(Date.now() - 30 * 3_600_000));
  zh.push({ type: 'turn_end', status: 'completed', duration_ms: 88_000 }, new Date(Date.now() - 30 * 3_600_000));
  const big = edge.add({ id: 'long', title: l('Migrate 2,400 tables', '迁移 2400 张表'), first_message: 'Migrate', project_path: '/home/me/warehouse' });
  long(big, 10_000);
  big.object.updated_at = ago(60 * 50);
  big.object.activity = l('Part 2400 of the migration is done', '第 2400 部分已经迁移完成');

  const past = (agent: string, id: string, path: string, first: string, hours: number): void => {
    edge.past.push({
      agent, session: { id, project_id: path.replaceAll('/', '-'), project_path: path, created_at: ago(hours * 60), first_message: first, message_timestamp: ago(hours * 60), message_count: 14 },
      events: [{ type: 'user_message', id: null, text: first }, { type: 'text', id: 'a', text: 'I looked into it. **Two** places need a change; both are small.', delta: false }, { type: 'turn_end', status: 'completed', duration_ms: 31_000 }],
    });
  };
  past('claude', 'h1', '/home/me/app', 'Why is the build slow since last week?', 30);
  past('claude', 'h2', '/home/me/app', 'Write the changelog for 2.4 from the commits', 54);
  past('claude', 'h3', '/home/me/shop', l('Add a discount field to the basket, with tests', '给购物车加上折扣字段，并写好测试'), 80);
  past('claude', 'h4', '/home/me/site', 'The page jumps when fonts load. Find out why.', 200);
  past('codex', 'h5', '/home/me/notes', 'Explain this regular expression', 90);
  edge.files.set('/home/me/app/README.md', '# app\n\nA small service.\n');
  edge.files.set('/home/me/app/package.json', '{\n  "name": "app",\n  "version": "2.4.0"\n}\n');
  edge.files.set('/home/me/app/src/login.ts', `import { users } from './users';\nimport { verify } from './crypto';\n\n/** Checks a form and starts a session. */\nexport async function login(form: Form): Promise<Answer> {\n  const user = await users.find(form.email);\n  if (!user) return fail('unknown user');\n  const valid = await verify(user.hash, form.password);\n  if (!valid) return fail('wrong password', 401);\n  session.start(user); // only now\n  return redirect('/home');\n}\n`);
  edge.files.set('/home/me/app/src/users.ts', 'export const users = new Map();\n');
  return edge;
}
