//! What an approval shows and what the record says of it, with the real CLIs: arguments, files as they are on the disk,
//! changed arguments, the mode after a plan.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { openBrowser, type Size } from './browser';
import { RealMachine } from './machine';
import { cannotRun, Visit } from './visit';

describe.skipIf(cannotRun('approvals of real agents'))('real agents', { timeout: 180_000 }, () => {
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
  const ready = (at: Visit): Promise<void> => at.page.locator('.ask:not(.inert)').waitFor();

  test.each(['phone', 'desk'] as Size[])('%s: Claude overwrites a file in sight of what is in it, and a changed command is the one that runs', async (size) => {
    const at = visit = await Visit.open(browser, machine, { size });
    await at.begin('say ready');
    await at.done(1);
    const { project_path: project } = await at.details();
    const file = join(project, 'notes.md');
    writeFileSync(file, '# Notes\n\nKeep this.\n');

    await at.send(`call Read ${JSON.stringify({ file_path: file })}`);
    await at.done(2);
    await at.send(`call Write ${JSON.stringify({ file_path: file, content: '# Notes\n\nOne.\n' })}`);
    await ready(at);
    const approval = at.page.locator('.approval');
    await approval.locator('.tool-name', { hasText: 'Write' }).waitFor();
    await approval.getByText('Overwrites').waitFor();
    await approval.locator('.d.del', { hasText: 'Keep this.' }).waitFor();
    expect(await approval.locator('.d.del .no').innerText()).toBe('3');
    await approval.locator('.rule', { hasText: 'Edits allowed' }).waitFor();
    // Changed as the text it is.
    await approval.getByRole('button', { name: 'Change first' }).click();
    await at.page.locator('#edit-content').fill('# Notes\n\nKeep this.\nAnd one.\n');
    await at.page.getByRole('button', { name: 'Allow as changed' }).click();
    await at.done(3);
    expect(readFileSync(file, 'utf8')).toBe('# Notes\n\nKeep this.\nAnd one.\n');

    await at.send(`run tool: touch ${size}-asked.txt`);
    await at.asked(`touch ${size}-asked.txt`);
    await ready(at);
    await approval.locator('.rule', { hasText: 'Bash(touch' }).waitFor();
    await approval.getByRole('button', { name: 'Change first' }).click();
    await at.page.locator('#edit-command').fill(`touch ${size}-ran.txt`);
    await at.page.getByRole('button', { name: 'Allow as changed' }).click();
    await at.done(4);
    expect([await at.exists(`${size}-asked.txt`), await at.exists(`${size}-ran.txt`)]).toEqual([false, true]);
    const card = at.page.locator('.card', { hasText: `touch ${size}-ran.txt` }).last();
    await card.getByText('Changed by you').waitFor();
    await card.locator('.card-head').click();
    await card.getByText('What was asked for').click();
    await card.locator('.asked-for', { hasText: `touch ${size}-asked.txt` }).waitFor();
    const events = (await at.events()) as unknown as { type: string; edited?: { asked: { command?: string }; ran: { command?: string } } }[];
    const edited = events.flatMap((event) => (event.type === 'approval_resolved' && event.edited ? [event.edited] : []));
    expect(edited.pop()).toMatchObject({ asked: { command: `touch ${size}-asked.txt` }, ran: { command: `touch ${size}-ran.txt` } });
  });

  test('phone: Codex says where a command runs, and what the session would grant', async () => {
    const at = visit = await Visit.open(browser, machine, { size: 'phone' });
    await at.begin('run tool: touch codex-fields.txt', 'Codex');
    await ready(at);
    const { project_path: project } = await at.details();
    await at.page.locator('.fields', { hasText: project }).waitFor();
    await at.page.locator('.rule', { hasText: 'This very command in this directory' }).waitFor();
    await at.page.getByRole('button', { name: 'Deny', exact: true }).click();
    await at.done(1);
    expect(await at.exists('codex-fields.txt')).toBe(false);
  });

  test('desk: Claude goes on in the mode that its plan was approved with, and the chip says so', async () => {
    const at = visit = await Visit.open(browser, machine, { size: 'desk' });
    await at.begin('say ready');
    await at.done(1);
    await at.page.locator('.composer .chip', { hasText: 'Ask first' }).click();
    await at.page.locator('dialog').getByText('Plan only').click();
    await at.page.locator('.composer .chip', { hasText: 'Plan only' }).waitFor();
    await at.send('call ExitPlanMode {"plan":"# The plan"}');
    await ready(at);
    await at.page.getByRole('button', { name: 'Approve, accept edits' }).click();
    await at.done(2);
    await at.page.locator('.composer .chip', { hasText: 'Edits allowed' }).waitFor();
  });
});
