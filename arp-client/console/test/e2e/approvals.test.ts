//! Nobody allows what they have not seen: what is typed or tapped by chance decides nothing, the panel shows all that
//! is asked for, and the record says what ran. Against the pretended machine, on a phone and at a desk.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { liveMachine } from '../../dev/mock/data';
import type { MockEdge } from '../../dev/mock/edge';
import { script } from '../../dev/mock/scripts';
import { MockServer } from '../../dev/mock/server';
import { clocked, device, faults, halt, openBrowser, seriousFaults, settled, SIZES, type Look, type Size } from './browser';

let browser: Browser;
let server: MockServer;
let base: string;
let edge: MockEdge;
let context: BrowserContext;
let page: Page;

beforeAll(async () => {
  browser = await openBrowser();
});
afterAll(() => browser.close());
beforeEach(async () => {
  server = new MockServer();
  edge = liveMachine();
  server.edges.set('demo', edge);
  base = await server.listen();
});
afterEach(async () => {
  expect(faults.get(page) ?? []).toEqual([]);
  await context.close();
  await server.close();
});

/** Decisions that left the page. */
let sent: string[];
const open = async (look: Look): Promise<void> => {
  context = await device(browser, look);
  page = await context.newPage();
  // Time goes as always until a test stops it.
  await clocked(page);
  sent = [];
  page.on('request', (request) => {
    if (request.method() === 'POST' && request.url().includes('/approvals/')) sent.push(request.url());
  });
  await page.goto(`${base}/?token=demo`);
  await page.locator('.item').first().waitFor({ state: 'attached' });
};
const begin = async (text: string): Promise<void> => {
  await page.locator('.new-pill').click();
  await page.locator('#new-prompt').fill(text);
  await page.locator('.new-foot button').click();
  await page.locator('.bubble').waitFor();
};
const said = (text: string | RegExp): Promise<void> => page.locator('.md', { hasText: text }).last().waitFor();
/** The question is all there and takes an answer, by keys too: whoever typed a second ago may be typing still. */
const ready = async (): Promise<void> => {
  await page.locator('.ask:not(.inert)').waitFor();
  await page.clock.fastForward(1_100);
};
/** The session that was begun. */
const session = (): NonNullable<ReturnType<MockEdge['sessions']['get']>> => {
  const found = edge.sessions.get(page.url().split('/').pop() ?? '');
  if (!found) throw new Error(`no session at ${page.url()}`);
  return found;
};
const outcomes = (): string[] => session().log.flatMap((event) => (event.type === 'approval_resolved' ? [event.outcome] : []));

/** Looks at the panel: nothing spills over the side, nothing serious for axe; with SHOTS, a picture. */
const look = async (name: string, size: Size): Promise<void> => {
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(SIZES[size].width);
  expect(await seriousFaults(page)).toEqual([]);
  const dir = process.env['SHOTS'];
  if (!dir) return;
  mkdirSync(dir, { recursive: true });
  for (const theme of ['light', 'dark'] as const) {
    await page.evaluate((value) => { document.documentElement.dataset['theme'] = value; }, theme);
    await settled(page);
    await page.screenshot({ path: join(dir, `${name}-${size}-${theme}.png`) });
  }
  await page.evaluate(() => { document.documentElement.dataset['theme'] = 'light'; });
};

describe.each(['phone', 'desk'] as const)('%s', (size) => {
  const primary = (): ReturnType<Page['locator']> => page.locator('.decide .primary');
  const press = async (): Promise<void> => (size === 'phone' ? primary().tap() : primary().click());

  // 1. Typing approves nothing.
  test('letters_that_are_being_typed_decide_nothing_and_go_on_where_they_were', async () => {
    let come = (): void => undefined;
    const called = new Promise<void>((resolve) => { come = resolve; });
    edge.script = async (of, _, stop) => {
      await called;
      await script(of, 'run rm -rf build', stop);
    };
    await open({ size });
    await begin('later');
    await page.locator('#reply').click();
    const text = 'and then add a note on dates';
    // As a person types: to wherever the keys go. The question comes in the middle.
    await page.keyboard.type(text.slice(0, 12));
    come();
    await page.locator(size === 'phone' ? '.waiting-bar' : '.ask:not(.inert)').waitFor();
    await page.keyboard.type(text.slice(12));
    expect(await page.locator('#reply').inputValue()).toBe(text);
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('reply');
    await look('typing', size);
    // Where the question stands is plain on a phone too, and one tap away.
    if (size === 'phone') await page.locator('.waiting-bar').tap();
    await page.locator('.approval .command', { hasText: 'rm -rf build' }).waitFor();
    expect(await page.locator('#reply').inputValue()).toBe(text);
    await ready();
    await page.locator('.approval-head').click();
    await page.clock.fastForward(1_100);
    await page.keyboard.type('aaad');
    await page.locator('#deny-reason:focus').waitFor();
    expect(sent).toEqual([]);
    expect(outcomes()).toEqual([]);
  });

  test('the_key_that_decides_belongs_to_a_text_while_one_is_written', async () => {
    await open({ size });
    await begin('run rm -rf build');
    await ready();
    // A message: it is sent.
    if (size === 'desk') {
      await page.locator('#reply').fill('say something else');
      await page.locator('#reply').press('Control+Enter');
      await page.locator('.dock .queue li', { hasText: 'say something else' }).first().waitFor();
      // Pressed once more right after: whoever does that is still writing.
      await page.locator('#reply').press('Control+Enter');
      expect(sent).toEqual([]);
      await page.clock.fastForward(1_100);
      await page.locator('#reply').press('Control+Enter');
    } else {
      await page.keyboard.press('Control+Enter');
    }
    await said('Ran rm -rf build');
    expect(outcomes()).toEqual(['allowed']);
  });

  test('a_reason_is_written_and_sent_by_keyboard', async () => {
    await open({ size });
    await begin('run rm -rf build');
    await ready();
    await page.locator('.approval-head').click();
    await page.keyboard.press('d');
    await page.keyboard.type('and then delete the trash');
    expect(await page.locator('#deny-reason').inputValue()).toBe('and then delete the trash');
    // Enter that takes letters which are still being put together sends nothing, nor does Escape then leave the form.
    // Safari tells the end of them first, and has only the key's code for it.
    for (const init of [{ isComposing: true, keyCode: 229 }, { isComposing: false, keyCode: 229 }]) {
      for (const key of ['Enter', 'Escape']) {
        await page.locator('#deny-reason').evaluate((area, [named, how]) => area.dispatchEvent(new KeyboardEvent('keydown', { key: named as string, bubbles: true, cancelable: true, ...(how as object) })), [key, init] as const);
      }
    }
    expect(await page.locator('#deny-reason').inputValue()).toBe('and then delete the trash');
    expect(sent).toEqual([]);
    if (size === 'phone') {
      // As in every field: with the keys of a screen Enter begins a line.
      await page.keyboard.press('Enter');
      expect(await page.locator('#deny-reason').inputValue()).toBe('and then delete the trash\n');
      expect(sent).toEqual([]);
      await page.keyboard.press('Control+Enter');
    } else {
      await page.locator('#deny-reason-enter').waitFor();
      await page.keyboard.press('Enter');
    }
    await said('Understood: and then delete the trash');
    expect(outcomes()).toEqual(['denied']);
  });

  // 2. One tap, one decision.
  test('a_doubled_tap_decides_one_question_and_the_next_shows_that_it_came', async () => {
    await open({ size });
    await begin('twice');
    await ready();
    const box = await primary().boundingBox();
    if (!box) throw new Error('no button');
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    const hit = (): Promise<void> => (size === 'phone' ? page.touchscreen.tap(x, y) : page.mouse.click(x, y));
    // From here on time goes as the test says, however slow the machine is.
    await halt(page);
    await hit();
    const second = page.locator('.approval .command', { hasText: 'rm -rf build' });
    while (!(await second.count())) await page.clock.runFor(16);
    expect(await page.locator('.ask.inert .arming').count()).toBe(1);
    await hit();
    await page.clock.runFor(250);
    // As fast as a thumb goes, and on: it is not ready until it was left alone.
    for (let n = 0; n < 8; n++) {
      await hit();
      await page.clock.runFor(130);
    }
    await page.clock.runFor(400);
    expect(await page.locator('.ask.inert').count()).toBe(1);
    expect(sent.length).toBe(1);
    expect(outcomes()).toEqual(['allowed']);
    await page.clock.runFor(300);
    expect(await page.locator('.ask.inert').count()).toBe(0);
    await page.clock.resume();
    await press();
    await said('Ran rm -rf build');
    expect(outcomes()).toEqual(['allowed', 'allowed']);
  });

  test('a_question_that_changes_under_the_finger_takes_no_answer_until_it_was_left_alone', async () => {
    await open({ size });
    await begin('ask me');
    await ready();
    await page.getByText('PostgreSQL').click();
    await halt(page);
    const { approvals } = session().object;
    const questions = approvals[0]?.questions?.map((question) => ({ ...question, text: 'Which database should be emptied?' })) ?? [];
    session().changed({ approvals: approvals.map((approval) => ({ ...approval, questions })) });
    const changed = page.locator('.questions', { hasText: 'be emptied?' });
    while (!(await changed.count())) await page.clock.runFor(16);
    expect(await page.locator('.ask.inert').count()).toBe(1);
    // What was chosen was chosen for another question.
    expect(await page.getByRole('button', { name: 'Answer' }).isDisabled()).toBe(true);
    await page.clock.resume();
    await ready();
    expect(sent).toEqual([]);
  });

  test('a_decision_names_the_approval_it_was_made_for', async () => {
    await open({ size });
    await begin('twice');
    await ready();
    const first = session().object.approvals[0]?.id ?? '';
    const sent = page.waitForRequest((request) => request.method() === 'POST' && request.url().includes('/approvals/'));
    await press();
    expect(decodeURIComponent((await sent).url())).toContain(first);
    await page.locator('.approval .command', { hasText: 'rm -rf build' }).waitFor();
    // The same answer again, late: it is refused and decides nothing else.
    const late = await fetch(`${base}/api/approvals/${encodeURIComponent(first)}?token=demo`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{"decision":"allow"}' });
    expect(late.status).toBe(409);
    expect(outcomes()).toEqual(['allowed']);
  });

  // 3. All of it is shown.
  test('everything_beside_a_command_is_shown_and_what_a_session_would_grant', async () => {
    await open({ size });
    await begin('beside npm install left-pad');
    await ready();
    await page.locator('.tool-name', { hasText: 'Bash' }).waitFor();
    const fields = page.locator('.fields');
    for (const text of ['/home/me/app/packages/server', '2:00', 'In the background', 'Without the sandbox', 'registry.example']) await fields.getByText(text).first().waitFor();
    expect(await page.locator('.rule').innerText()).toContain('Bash(npm install:*)');
    await look('beside', size);
    await page.locator('.rule').click();
    await said('Ran npm install');
    expect(outcomes()).toEqual(['allowed_for_session']);
  });

  test('files_are_compared_with_the_disk_with_true_line_numbers_and_whole_names', async () => {
    await open({ size });
    await begin('files');
    await ready();
    const file = (at: number): ReturnType<Page['locator']> => page.locator('.approval .file').nth(at);
    expect(await file(0).locator('.d.del .no').innerText()).toBe('413');
    await file(1).getByText('Overwrites').waitFor();
    await file(1).locator('.d.del', { hasText: '"audit": true' }).waitFor();
    await file(2).getByText('outside of the project').waitFor();
    await page.locator('.fields', { hasText: '/home/me' }).waitFor();
    for (const name of await page.locator('.approval .path-name').all()) {
      expect(await name.evaluate((box) => box.scrollWidth <= box.clientWidth + 1 || getComputedStyle(box).display === 'inline')).toBe(true);
    }
    await look('files', size);
    // In the record the file's name is never what is cut.
    await press();
    await page.locator('.turn-end').waitFor();
    const name = page.locator('.card-head .path-name').last();
    expect(await name.innerText()).toBe('login.ts');
    expect(await name.evaluate((box) => box.scrollWidth <= box.clientWidth + 1)).toBe(true);
  });

  test('names_that_every_object_has_are_names_like_any_other_and_nothing_that_is_given_is_left_out', async () => {
    edge.script = async (of) => {
      const input = JSON.parse('{"constructor":"one","__proto__":"two","toString":{"valueOf":3},"hasOwnProperty":true,"where":null}') as Record<string, unknown>;
      await of.ask({ tool_call_id: null, tool_name: 'mcp__rows__delete', kind: 'mcp', title: 'delete (rows)', reason: null, input, can_allow_session: true, session_grants: [{ type: 'mode', mode: 'constructor' }], can_edit: true });
      const ask = { tool_call_id: null, tool_name: 'AskUserQuestion', kind: 'question', title: 'constructor', reason: null, input: {}, can_allow_session: false, can_edit: false } as const;
      const { answers } = await of.ask({ ...ask, questions: ['constructor', '__proto__', 'Which?'].map((text) => ({ text, header: text, options: ['A', 'B'], descriptions: [], multiple: false })) });
      of.push({ type: 'text', id: 'end', text: `Chosen: ${Object.entries(answers ?? {}).map((pair) => pair.join(' ').replaceAll('_', '.')).join(', ')}.`, delta: false });
    };
    await open({ size });
    await begin('go');
    await ready();
    const shown = await page.locator('.ask .fields > div').evaluateAll((rows) => rows.map((row) => [row.querySelector('dt')?.textContent, row.querySelector('dd')?.textContent]));
    expect(shown).toEqual([['constructor', 'one'], ['__proto__', 'two'], ['toString', 'valueOf: 3'], ['hasOwnProperty', 'yes'], ['where', 'null']].map(([name, value]) => [name, expect.stringMatching(new RegExp(`^${value}$`, 'i'))]));
    await press();
    await page.locator('.questions fieldset').nth(2).waitFor();
    await ready();
    for (const at of [0, 1, 2]) await page.locator('.questions fieldset').nth(at).locator('.choice').nth(at % 2).click();
    await page.locator('.questions button[type=submit]').click();
    await said('Chosen: constructor A, ..proto.. B, Which? A.');
  });

  test('a_tool_of_an_mcp_server_is_named_with_it_and_a_hidden_character_in_any_field_is_told', async () => {
    await open({ size });
    await begin('mcp');
    await ready();
    expect(await page.locator('.tool-name').innerText()).toMatch(/transfer\s+of the MCP server\s+payments/);
    await page.locator('.fields', { hasText: 'Zoe‹U+202E›gnp.exe' }).waitFor();
    await page.locator('.approval .notice').waitFor();
    await look('mcp', size);
    await page.getByRole('button', { name: 'Deny', exact: true }).click();
    await said('It was deny.');
  });

  // 4. Changed in the form of the tool; the record knows both.
  test('a_command_that_was_changed_is_told_as_asked_and_as_run', async () => {
    await open({ size });
    await begin('run rm -rf build');
    await ready();
    await page.getByRole('button', { name: 'Change first' }).click();
    await page.locator('#edit-command').fill('rm -r build/tmp\necho done');
    await look('change', size);
    await page.getByRole('button', { name: 'Allow as changed' }).click();
    await said('Ran rm -r build/tmp');
    const card = page.locator('.card', { hasText: 'rm -r build/tmp' }).first();
    await card.getByText('Changed by you').waitFor();
    await card.locator('.card-head').click();
    expect(await card.locator('.command').innerText()).toBe('rm -r build/tmp\necho done');
    await card.getByText('What was asked for').click();
    await card.locator('.asked-for .output', { hasText: 'rm -rf build' }).waitFor();
    await look('changed', size);
    expect(session().log.find((event) => event.type === 'approval_resolved')).toMatchObject({ edited: { asked: { command: 'rm -rf build' }, ran: { command: 'rm -r build/tmp\necho done' } } });
    // The same after it is read anew.
    await page.reload();
    await page.locator('.card', { hasText: 'rm -r build/tmp' }).first().getByText('Changed by you').waitFor();
  });

  test('a_file_is_changed_as_text_and_nothing_else_of_the_call_is', async () => {
    await open({ size });
    await begin('write');
    await ready();
    await page.locator('.approval').getByText('Overwrites').waitFor();
    await page.locator('.approval .d.del', { hasText: 'Keep this.' }).waitFor();
    await look('write', size);
    await page.getByRole('button', { name: 'Change first' }).click();
    expect(await page.locator('#edit-content').inputValue()).toBe('# Notes\n\nOne.\nTwo.\n');
    // Nothing was changed yet, so there is nothing to allow as changed.
    expect(await page.getByRole('button', { name: 'Allow as changed' }).isDisabled()).toBe(true);
    await page.locator('#edit-content').fill('# Notes\n\nKeep this.\n');
    await page.getByRole('button', { name: 'Allow as changed' }).click();
    await page.locator('.turn-end').waitFor();
    expect(session().log.find((event) => event.type === 'approval_resolved')).toMatchObject({ edited: { ran: { file_path: '/home/me/app/notes.md', content: '# Notes\n\nKeep this.\n' } } });
  });

  // 5. and 6.
  test('a_plan_leads_to_the_mode_that_was_chosen_and_the_chip_follows_the_agent', async () => {
    await open({ size });
    for (const [button, mode, chip] of [['Approve, accept edits', 'acceptEdits', 'Edits allowed'], ['Approve, ask each time', 'default', 'Ask first']] as const) {
      await page.evaluate(() => { location.hash = '#/'; });
      await begin('plan');
      await ready();
      await page.locator('.fields', { hasText: 'run the tests' }).waitFor();
      if (mode === 'acceptEdits') await look('plan', size);
      await page.getByRole('button', { name: button }).click();
      await said(`I go on in mode ${mode}.`);
      await page.locator('.composer .chip', { hasText: chip }).waitFor();
    }
  });

  test('deny_is_one_tap_and_a_plan_is_kept_planning_with_a_word', async () => {
    await open({ size });
    await begin('run rm -rf build');
    await ready();
    await page.getByRole('button', { name: 'Deny', exact: true }).click();
    await said('Understood. I leave it.');
    await page.evaluate(() => { location.hash = '#/'; });
    await begin('plan');
    await ready();
    await page.getByRole('button', { name: 'Say what to change' }).click();
    await page.locator('#deny-reason').fill('Smaller steps');
    await page.locator('.decide-form .danger').click();
    await said('I plan on: Smaller steps.');
  });

  test('choices_keep_what_they_mean', async () => {
    await open({ size });
    await begin('ask me');
    await ready();
    await page.locator('.choice', { hasText: 'PostgreSQL' }).getByText('what production uses').waitFor();
    await look('question', size);
    await page.getByText('PostgreSQL').click();
    await page.getByRole('button', { name: 'Answer' }).click();
    await said('You chose PostgreSQL.');
  });
});

test('in Chinese the panel says the same', async () => {
  await open({ size: 'phone', lang: 'zh' });
  await begin('beside npm install left-pad');
  await ready();
  for (const text of ['允许一次', '拒绝并说明原因', '本会话内允许', '先修改']) await page.locator('.approval button', { hasText: text }).waitFor();
  await page.locator('.fields').getByText('不使用沙箱').waitFor();
  await look('zh', 'phone');
});
