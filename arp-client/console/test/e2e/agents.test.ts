//! All three agents, driven through the console alone: the real relay, the real arpc, the real Claude Code, Codex
//! and Gemini CLI; only the model is a loopback one.

import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { openBrowser, type Size } from './browser';
import { agentsDir, RealMachine } from './machine';
import { cannotRun, Visit } from './visit';

describe.skipIf(cannotRun('the journey with all agents'))('agents', { timeout: 120_000 }, () => {
  const machine = new RealMachine();
  let browser: Browser;
  let visit: Visit | undefined;

  beforeAll(async () => {
    browser = await openBrowser();
    await machine.start();
  });
  afterAll(async () => {
    await browser?.close();
    await machine.stop();
  });
  afterEach(async () => {
    await visit?.end();
    visit = undefined;
  });

  test.each([
    ['Codex', 'desk', ''],
    ['Gemini CLI', 'phone', 'gemini-2.5-flash'],
  ] as [string, Size, string][])('%s on a %s: starts, streams, is allowed and denied, goes on, is interrupted and stopped', async (agent, size, model) => {
    const at = visit = await Visit.open(browser, machine, { size });
    const name = agent.split(' ')[0]?.toLowerCase();
    await at.begin(`say good morning from ${name}`, agent, model);
    await at.said(`good morning from ${name}`);
    await at.done(1);

    await at.send(`run tool: touch ${name}-allowed.txt`);
    await at.asked(`touch ${name}-allowed.txt`);
    await at.allow();
    await at.done(2);
    await expect.poll(() => at.exists(`${name}-allowed.txt`), { timeout: 15_000 }).toBe(true);

    await at.send(`run tool: touch ${name}-denied.txt`);
    await at.asked(`touch ${name}-denied.txt`);
    await at.deny('Leave it');
    await at.done(3);
    expect(await at.exists(`${name}-denied.txt`)).toBe(false);
    await at.page.locator('.card.denied, .card.failed').last().waitFor();

    await at.send('say still here');
    await at.said('still here');
    await at.done(4);

    await at.send('slow 30');
    await at.said(/word2/);
    await at.page.locator('button.send.stop').click();
    await at.page.locator('.turn-end.interrupted').waitFor();
    await at.send('say after the interrupt');
    await at.said('after the interrupt');
    await at.stop();
  });

  test('claude on a desk: messages queue, one is taken back, and an interrupt lets the next one through', async () => {
    const at = visit = await Visit.open(browser, machine, { size: 'desk' });
    await at.begin('slow 40');
    await at.said(/word2/);
    await at.send('say the second one');
    await at.page.locator('.dock .queue li', { hasText: 'the second one' }).waitFor();
    await at.send('say the third one');
    const third = at.page.locator('.dock .queue li', { hasText: 'the third one' });
    await third.locator('button').click();
    await third.waitFor({ state: 'detached' });
    await at.page.locator('button.send.stop').click();
    await at.page.locator('.turn-end.interrupted').waitFor();
    await at.said('the second one');
    await at.done(2);
    await at.page.locator('.dock .queue').waitFor({ state: 'detached' });
    expect((await at.page.locator('.bubble').allInnerTexts()).map((text) => text.split('\n').pop())).toEqual(['slow 40', 'say the second one']);
    await at.stop();
  });

  test('claude on a phone: mode and model change in mid-session, and the next turn runs by them', async () => {
    const at = visit = await Visit.open(browser, machine, { size: 'phone' });
    await at.begin('say ready');
    await at.done(1);
    const [mode, model] = [at.page.locator('.composer .chip').nth(0), at.page.locator('.composer .chip').nth(1)];
    await mode.click();
    await at.page.locator('dialog').getByText('Edits allowed').click();
    await at.page.locator('.composer .chip', { hasText: 'Edits allowed' }).waitFor();
    await model.click();
    await at.page.locator('dialog input').fill('claude-haiku-4-5');
    await at.page.locator('dialog form button').click();
    await at.page.locator('.composer .chip', { hasText: 'haiku' }).waitFor();
    const { project_path: path } = await at.details();
    await at.send(`call Write {"file_path":"${path}/edited.txt","content":"by itself\\n"}`);
    await at.done(2);
    expect(await at.exists('edited.txt')).toBe(true);
    expect((await machine.modelsAsked()).pop()).toMatch(/haiku/);
    await at.stop();
  });

  test('claude on a desk: a copy goes its own way, and what it came from stays as it was', async () => {
    const at = visit = await Visit.open(browser, machine, { size: 'desk' });
    await at.begin('say the common beginning');
    await at.done(1);
    const first = await at.session();
    const before = await at.events();
    await at.menu('Fork into a new session');
    await at.page.waitForFunction((id) => !location.hash.endsWith(id), first);
    await at.page.locator('.head').waitFor();
    await at.send('say another way');
    await at.said('another way');
    await at.done(1);
    expect(await at.session()).not.toBe(first);
    // The copy remembers: the model is sent the first turn again.
    expect(await machine.lastAsked()).toContain('the common beginning');
    await at.stop();
    await at.page.evaluate((id) => { location.hash = location.hash.replace(/[^/]+$/, id); }, first);
    await at.said('the common beginning');
    expect((await at.events()).length).toBe(before.length);
    await expect.poll(() => at.page.locator('.md', { hasText: 'another way' }).count()).toBe(0);
    await at.stop();
  });

  test('claude on a phone: a new session goes on with the last one of its directory, even one that was begun in a terminal', async () => {
    const project = join(machine.home, 'terminal');
    mkdirSync(project);
    execFileSync(join(agentsDir() ?? '', 'claude'), ['-p', 'say begun in a terminal'], { cwd: project, env: machine.env, stdio: ['ignore', 'ignore', 'inherit'], timeout: 60_000 });
    const at = visit = await Visit.open(browser, machine, { size: 'phone' });
    await at.page.locator('.new-pill').click();
    await at.page.locator('.agents label', { hasText: 'Claude Code' }).click();
    await at.page.locator('.settings-rows button').first().click();
    await at.page.locator('dialog form input').fill(project);
    await at.page.locator('dialog form button').click();
    const row = at.page.locator('.settings-rows .switch', { hasText: 'say begun in a terminal' });
    await row.click();
    await at.page.locator('#new-prompt').fill('say and gone on with from a phone');
    await at.page.getByRole('button', { name: 'Resume' }).click();
    await at.said('and gone on with from a phone');
    await at.done(1);
    expect(await machine.lastAsked()).toContain('begun in a terminal');
    const session = await at.session();

    // Now it is one of ours: going on leads to the very same session.
    await at.page.evaluate(() => { location.hash = '#/new'; });
    await at.page.locator('.settings-rows .switch').click();
    await at.page.getByRole('button', { name: 'Resume' }).click();
    await at.page.locator('#reply').waitFor();
    expect(await at.session()).toBe(session);
    await at.stop();
  });
});
