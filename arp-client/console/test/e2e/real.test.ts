//! The same journey with nothing pretended but the model: the real arpc, the real Claude Code, a loopback model
//! API. Skipped, loudly, where they are not built or installed; with CI=true that is a failure.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { device, faults, openBrowser, seriousFaults } from './browser';
import { HOSTILE } from '../../dev/mock/scripts';
import { agentsDir, binary, RealMachine } from './machine';

const missing = [
  binary('arps') && binary('arpc') ? '' : 'cargo build -p arps -p arpc',
  binary('arp-model-api') ? '' : 'cargo build -p arp-testkit --bin arp-model-api',
  agentsDir() ? '' : 'npm install the CLIs and set ARP_TEST_AGENTS to their node_modules/.bin',
].filter(Boolean);
if (missing.length) {
  if (process.env['CI'] === 'true') throw new Error(`the real journey needs: ${missing.join('; ')}`);
  console.warn(`SKIPPED the real journey. It needs: ${missing.join('; ')}`);
}

describe.skipIf(missing.length > 0)('real machine', { timeout: 120_000 }, () => {
  const machine = new RealMachine().withTunnel();
  let browser: Browser;
  let context: BrowserContext | undefined;
  let page: Page;

  beforeAll(async () => {
    browser = await openBrowser();
    await machine.start();
    console.info(`the real machine is reached by ${machine.way}`);
  });
  afterAll(async () => {
    await browser?.close();
    await machine.stop();
  });
  afterEach(async () => {
    if (!context) return;
    if (process.env['SHOT']) await page.screenshot({ path: process.env['SHOT'] });
    expect(faults.get(page)).toEqual([]);
    await context.close();
    context = undefined;
  });

  const open = async (size: 'phone' | 'desk', lang: 'en' | 'zh' = 'en'): Promise<void> => {
    context = await device(browser, { size, lang });
    page = await context.newPage();
    await page.goto(`${machine.base}/?token=demo`);
    await page.locator('.new-pill').waitFor();
  };
  const begin = async (text: string): Promise<void> => {
    await page.locator('.new-pill').click();
    await page.locator('#new-prompt').fill(text);
    await page.locator('.new-foot button').click();
    await page.locator('.bubble').waitFor();
  };
  const reply = async (text: string): Promise<void> => {
    const turns = await page.locator('.turn-end').count();
    await page.locator('#reply').fill(text);
    await page.locator('button.send').click();
    await page.waitForFunction((n) => document.querySelectorAll('.turn-end').length >= n, turns);
  };
  const said = (text: string | RegExp): Promise<void> => page.locator('.md', { hasText: text }).last().waitFor();
  const done = async (count: number): Promise<void> => page.waitForFunction((n) => document.querySelectorAll('.turn-end').length >= n, count, { timeout: 60_000 }).then(() => undefined);

  test.each(['phone', 'desk'] as const)('%s: a session starts, streams, asks, is allowed and denied, and is stopped', async (size) => {
    await open(size);
    expect(page.url()).toBe(`${machine.base}/`);
    await begin(`say hello from ${size}`);
    await said(`hello from ${size}`);
    await done(1);

    await reply(`run tool: touch ${size}-allowed.txt`);
    await page.locator('.approval .command', { hasText: `touch ${size}-allowed.txt` }).waitFor();
    expect(await page.title()).toMatch(/^\(1\) .*arp$/);
    expect(await seriousFaults(page)).toEqual([]);
    await page.locator('.decide .primary').click();
    await done(2);
    const session = await page.evaluate(() => location.hash.split('/').pop());
    const where = await fetch(`${machine.base}/api/sessions/${session}?lines=none&token=demo`).then((answer) => answer.json()) as { session: { project_path: string } };
    expect(existsSync(join(where.session.project_path, `${size}-allowed.txt`))).toBe(true);

    await reply(`run tool: touch ${size}-denied.txt`);
    await page.locator('.approval').waitFor();
    await page.getByRole('button', { name: 'Deny with a reason' }).click();
    await page.locator('#deny-reason').fill('Not on my phone');
    await page.locator('.decide .danger').click();
    await done(3);
    await page.locator('.card.denied, .card.failed').last().waitFor();
    await said(/Not on my phone/);
    expect(existsSync(join(where.session.project_path, `${size}-denied.txt`))).toBe(false);

    await page.getByRole('button', { name: 'More' }).click();
    await page.getByRole('button', { name: 'Stop session' }).click();
    await page.locator('dialog').getByRole('button', { name: 'Stop session' }).click();
    await page.locator('.state.cancelled').waitFor();
  });

  test('phone: arpc is killed in the middle of a turn; the page says so, comes back and misses no word', async () => {
    await open('phone');
    await begin('slow 8');
    await page.locator('.md.streaming').waitFor();
    await machine.killEdge();
    await page.locator('.main .line.down').waitFor();
    await machine.startEdge();
    await page.locator('.main .line.down').waitFor({ state: 'detached', timeout: 30_000 });
    await done(1);
    const session = await page.evaluate(() => location.hash.split('/').pop());
    const { events } = await fetch(`${machine.base}/api/sessions/${session}/events?since=0&limit=2000&token=demo`).then((answer) => answer.json()) as { events: { seq: number; type: string; text?: string; delta?: boolean }[] };
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
    const whole = events.filter(({ type, delta }) => type === 'text' && !delta).map(({ text }) => text).join(' ');
    expect((await page.locator('.md').last().innerText()).split(/\s+/).join(' ').trim()).toBe(whole.split(/\s+/).join(' ').trim());
  });

  test('phone: without a token the relay asks for it, and leads to the console', async ({ skip }) => {
    if (machine.way !== 'relay') skip();
    context = await device(browser, { size: 'phone', lang: 'zh' });
    page = await context.newPage();
    await page.goto(`${machine.base}/`);
    await page.getByRole('heading', { name: '哪台机器？' }).waitFor();
    await page.getByLabel(/Token/).fill('demo');
    await page.getByRole('button', { name: '打开' }).click();
    await page.locator('.new-pill').waitFor();
    expect(page.url()).toBe(`${machine.base}/`);
  });

  test('files are browsed and read, below a prefix, where they are served', async ({ skip }) => {
    if (machine.way !== 'relay') skip();
    context = await device(browser, { size: 'phone' });
    page = await context.newPage();
    await page.goto(`${machine.base}/t/demo/`);
    await page.locator('.nav').getByRole('link', { name: 'Files' }).click();
    await page.locator('.main .rows a').first().click();
    await page.evaluate((path) => { location.hash = `#/files/?path=${encodeURIComponent(path)}`; }, `${machine.project}/README.md`);
    await page.locator('.source', { hasText: '# demo' }).waitFor();
    expect(page.url()).toContain('/t/demo/#/files/');
  });

  test('phone: what an agent prints cannot do anything', async () => {
    await open('phone');
    const away: string[] = [];
    page.on('request', (request) => {
      if (!request.url().startsWith(machine.base)) away.push(request.url());
    });
    page.on('dialog', () => away.push('dialog'));
    const harmless = async (): Promise<void> => {
      await expect.poll(() => page.locator('.md img, .md script, .md iframe, .md svg, .md style, .md form, .md input').count()).toBe(0);
      for (const link of await page.locator('.md a').all()) expect(await link.getAttribute('href')).toMatch(/^https:\/\/(good|evil)\.example/);
      expect(await page.evaluate(() => (globalThis as { pwned?: number }).pwned)).toBeUndefined();
      expect(await page.evaluate(() => [innerWidth, document.documentElement.scrollWidth])).toEqual([390, 390]);
      expect(away).toEqual([]);
    };
    await machine.answer(HOSTILE);
    await begin('be hostile');
    await said('is a plain link.');
    await done(1);
    await harmless();

    // One line of a third of a megabyte, made of what makes parsers slow; the page answers all the while.
    await machine.answer(`**${'*a['.repeat(100_000)}`);
    await page.locator('#reply').fill('be long');
    await page.locator('button.send').click();
    await page.locator('.md .plain').waitFor();
    await page.locator('.state.idle').waitFor();
    await harmless();

    // What a command hides is shown before it is allowed, and what a tool prints to a terminal does nothing here.
    await page.locator('#reply').fill(`run tool: touch hidden.txt; printf '\\033[8mhidden\\033[0m \\033]0;title\\007' # \u202egnp.exe`);
    await page.locator('button.send').click();
    await page.locator('.approval .command', { hasText: '# ‹U+202E›gnp.exe' }).waitFor();
    await page.locator('.approval .notice').waitFor();
    await page.locator('.decide .primary').click();
    await page.locator('.state.idle').waitFor();
    await page.locator('.card-head', { hasText: 'touch hidden' }).last().click();
    await page.locator('.card.open .output', { hasText: /^hidden\s*$/ }).waitFor();
    await harmless();
  });

  test.each([['phone', 'en'], ['desk', 'zh']] as const)('%s: a turn that failed is told over the session and in the list, and tried again it goes well (%s)', async (size, lang) => {
    await open(size, lang);
    await begin(`fake error 400 no ${size}`);
    const trouble = page.locator('.line.trouble');
    await trouble.waitFor({ timeout: 90_000 });
    expect(await seriousFaults(page)).toEqual([]);
    const words = (await trouble.locator('p').innerText()).trim();
    expect(words).toMatch(lang === 'zh' ? /[\u4e00-\u9fff].*400/ : /400/);
    await page.evaluate(() => { location.hash = '#/'; });
    await page.locator('.item', { hasText: words }).first().click();
    // Tapped twice, it is tried once; the API takes it now.
    await machine.answer(`well again on ${size}`);
    await trouble.getByRole('button', { name: lang === 'zh' ? '重试' : 'Try again' }).dblclick();
    await said(`well again on ${size}`);
    await trouble.waitFor({ state: 'detached' });
    const session = await page.evaluate(() => location.hash.split('/').pop());
    const { session: object } = await fetch(`${machine.base}/api/sessions/${session}?lines=none&token=demo`).then((answer) => answer.json()) as { session: { turns: number } };
    expect(object.turns).toBe(2);
  });

  test.each(['phone', 'desk'] as const)('%s: deleting our record leaves the history, which can be read and resumed', async (size) => {
    await open(size);
    await begin(`say keep this of ${size}`);
    await done(1);
    await page.getByRole('button', { name: 'More' }).click();
    await page.getByRole('button', { name: 'Delete session' }).click();
    const dialog = page.locator('dialog');
    expect(await dialog.getByRole('radio').first().isChecked()).toBe(true);
    await dialog.getByRole('button', { name: 'Delete', exact: true }).click();
    await page.locator('.screen.session').waitFor({ state: 'detached' });
    const found = async (): Promise<string[]> => {
      const answer = await fetch(`${machine.base}/api/overview?q=${encodeURIComponent(`keep this of ${size}`)}&token=demo`).then((one) => one.json()) as { entries: { kind: string }[] };
      return answer.entries.map(({ kind }) => kind);
    };
    await expect.poll(found, { timeout: 60_000 }).toEqual(['past']);
    await page.reload();
    await page.locator('.item', { hasText: `keep this of ${size}` }).first().click();
    await said(`keep this of ${size}`);
    await page.getByLabel('Resume').fill('say still here');
    await page.getByRole('button', { name: 'Resume' }).click();
    await said('still here');
  });

  test.each(['phone', 'desk'] as const)('%s: the address of the machine\'s own tunnel is shown, and that it changed', async (size) => {
    context = await device(browser, { size, lang: 'en' });
    page = await context.newPage();
    await page.goto(`${machine.base}/?token=demo#/settings`);
    const tunnel = page.locator('.tunnel');
    await tunnel.getByText('Connected').waitFor({ timeout: 60_000 });
    const before = await tunnel.locator('.address').innerText();
    const starts = machine.tunnelsStarted();
    if (size === 'phone') machine.tunnelHost('localhost');
    machine.loseTunnel();
    if (size === 'phone') {
      await expect.poll(() => tunnel.locator('.address').innerText(), { timeout: 60_000 }).not.toBe(before);
      expect(await tunnel.locator('.address').innerText()).toMatch(/^http:\/\/localhost:\d+\/?$/);
      await tunnel.getByText(`The address of this machine changed: ${await tunnel.locator('.address').innerText()} (before: ${before})`).waitFor();
      await page.evaluate(() => { location.hash = '#/'; });
      const news = page.locator('.line.news');
      await news.getByText(`(before: ${before})`).waitFor();
      await news.getByRole('button', { name: 'Close' }).click();
      await news.waitFor({ state: 'detached' });
      await page.reload();
      await page.locator('.new-pill').waitFor();
      await expect.poll(() => news.count()).toBe(0);
    } else {
      // The same address as before: nothing is told anew.
      await expect.poll(() => machine.tunnelsStarted(), { timeout: 60_000 }).toBeGreaterThan(starts);
      await tunnel.getByText('Connected').waitFor({ timeout: 60_000 });
      expect(await tunnel.locator('.address').innerText()).toBe(before);
    }
    expect(await seriousFaults(page)).toEqual([]);
  });

  test('desk: a past session is found in the list, read, resumed and deleted, in Chinese', async () => {
    await open('desk', 'zh');
    await begin('say remember the lighthouse');
    await said('remember the lighthouse');
    await done(1);
    await page.getByRole('button', { name: '更多' }).click();
    await page.getByRole('button', { name: '停止会话' }).click();
    await page.locator('dialog').getByRole('button', { name: '停止会话' }).click();
    await page.locator('.state.cancelled').waitFor();

    await page.evaluate(() => { location.hash = '#/'; });
    await page.getByRole('button', { name: '搜索会话' }).click();
    await page.getByLabel('搜索会话').last().fill('lighthouse');
    await page.locator('.item', { hasText: 'lighthouse' }).click();
    await said('remember the lighthouse');
    await reply('say the light is on');
    await said('the light is on');
    await page.getByRole('button', { name: '更多' }).click();
    await page.getByRole('button', { name: '删除会话' }).click();
    await page.locator('dialog').getByRole('radio', { name: '连同 Claude Code 的历史一起删除' }).check();
    await page.locator('dialog').getByRole('button', { name: '删除', exact: true }).click();
    await page.locator('.screen.session').waitFor({ state: 'detached' });
    await page.locator('.item', { hasText: 'lighthouse' }).waitFor({ state: 'detached' });
    // Nor does the agent's own history know it any more.
    const left = await fetch(`${machine.base}/api/overview?q=lighthouse&token=demo`).then((answer) => answer.json()) as { total: number };
    expect(left.total).toBe(0);
  });
});
