//! Every main screen, in both sizes and themes: axe finds nothing serious, nothing spills over the side, and
//! the pictures of docs/screenshots are made (with `SCREENSHOTS=1`).

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { liveMachine } from '../../dev/mock/data';
import { busyGateway } from '../../dev/mock/gateway';
import { MockServer } from '../../dev/mock/server';
import { device, faults, openBrowser, seriousFaults, settled, SIZES } from './browser';
import { shrink } from './png';

const OUT = process.env['SCREENSHOTS_DIR'] ?? join(import.meta.dirname, '../../../../docs/screenshots');
const MAKE = Boolean(process.env['SCREENSHOTS']);

let browser: Browser;
let server: MockServer;
let base: string;

beforeAll(async () => {
  browser = await openBrowser();
  server = new MockServer();
  server.edges.set('demo', liveMachine());
  server.edges.set('zh', liveMachine('studio', 'zh'));
  for (const [token, lang] of [['gateway', 'en'], ['gateway-zh', 'zh']] as const) {
    const edge = liveMachine('studio', lang);
    const gateway = edge.withGateway(busyGateway());
    gateway.under({ model: 'claude-opus-4-8', phase: 'streaming', output: 812, millis: 9_400, redacted: 2 });
    gateway.under({ model: 'gpt-5.5', service: 'codex', upstream: 'openai' });
    gateway.filters.rules.push({ source: 'corp-[0-9]+', target: 'HOST', op: 'replace' });
    edge.sessions.get('show')?.changed({ gateway: gateway.session({ failovers: 1 }) });
    server.edges.set(token, edge);
  }
  base = await server.listen();
  mkdirSync(OUT, { recursive: true });
});
afterAll(async () => {
  await browser.close();
  await server.close();
});

/** Screens: a name, and how to get there. */
const screens: [string, (page: Page) => Promise<void>][] = [
  ['inbox', async (page) => void (await page.getByText('Clean up the build scripts').first().waitFor())],
  ['approval', async (page) => {
    await page.getByText('Clean up the build scripts').first().click();
    await page.getByRole('button', { name: /Allow once/ }).waitFor();
  }],
  ['approval-diff', async (page) => {
    await page.getByText('Fix the login bug').first().click();
    await page.locator('.approval .diff').waitFor();
  }],
  ['session', async (page) => {
    await page.getByText('Login accepts the password').first().click();
    await page.locator('.md table').waitFor();
  }],
  ['session-open-cards', async (page) => {
    await page.getByText('Login accepts the password').first().click();
    await page.locator('.md table').waitFor();
    await page.getByRole('log').evaluate((list) => { list.scrollTop = 0; list.dispatchEvent(new Event('scroll')); });
    await page.locator('.card-head', { hasText: 'Look for other' }).click();
    await page.locator('.card-head', { hasText: 'src/login.ts' }).last().click();
  }],
  ['inbox-zh', async (page) => void (await page.getByRole('heading', { name: /等你处理/ }).waitFor())],
  ['approval-zh', async (page) => {
    await page.getByText('清理构建脚本').first().click();
    await page.getByRole('button', { name: /允许/ }).first().waitFor();
  }],
  ['menu', async (page) => {
    await page.getByText('Login accepts the password').first().click();
    await page.getByRole('button', { name: 'More' }).click();
    await page.getByText('Fork into a new session').waitFor();
  }],
  ['palette', async (page) => {
    await page.keyboard.press('Control+k');
    await page.locator('.palette li').nth(4).waitFor();
  }],
  ['landing', async (page) => {
    await page.context().clearCookies();
    await page.evaluate(() => { sessionStorage.clear(); });
    await page.goto(`${base}/?`);
    await page.getByRole('heading', { name: 'Which machine?' }).waitFor();
  }],
  ['new', async (page) => {
    await page.getByRole('link', { name: 'What should be done?' }).click();
    await page.getByRole('button', { name: 'Start' }).waitFor();
    await page.getByLabel('Task').fill('Move the price rules out of the basket and give them tests of their own.');
  }],
  ['search', async (page) => {
    await page.getByRole('button', { name: 'Search' }).click();
    await page.getByLabel('Search sessions').last().fill('shop');
    await page.locator('.item', { hasText: 'discount field' }).waitFor();
  }],
  ['directory', async (page) => {
    await page.getByRole('link', { name: 'What should be done?' }).click();
    await page.locator('.settings-rows button', { hasText: 'Directory' }).click();
    await page.locator('dialog').getByText('Git repositories').waitFor();
  }],
  ['new-zh', async (page) => {
    await page.locator('.new-pill').click();
    await page.locator('.places .pick').first().waitFor();
  }],
  ['settings-zh', async (page) => {
    await page.locator('.nav').getByRole('link', { name: '设置' }).click();
    await page.getByText('Claude Code').waitFor();
  }],
  ['stranger', async (page) => {
    const edge = server.edges.get('demo');
    server.edges.set('demo', liveMachine('intruder'));
    server.cut();
    await page.locator('.stranger').waitFor({ state: 'attached' });
    if (edge) server.edges.set('demo', edge);
  }],
  ['waiting-message', async (page) => {
    await page.getByText('Login accepts the password').first().click();
    await page.locator('.md table').waitFor();
    server.away = true;
    server.cut();
    await page.getByLabel('Message').fill('Yes, and note it in the changelog.');
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await page.locator('.dock .queue li.waiting').first().waitFor();
    await page.locator('.main .line.down').waitFor();
  }],
  ['files', async (page) => {
    await page.evaluate(() => { location.hash = `#/files/?path=${encodeURIComponent('/home/me/app/src/login.ts')}`; });
    await page.locator('.source').waitFor();
  }],
  ['settings', async (page) => {
    await page.getByRole('link', { name: 'Settings' }).click();
    await page.getByText('Claude Code').waitFor();
  }],
  ['gateway', async (page) => {
    await page.evaluate(() => { location.hash = '#/gateway/'; });
    await page.locator('.figures').first().waitFor();
  }],
  ['gateway-upstreams', async (page) => {
    await page.evaluate(() => { location.hash = '#/gateway//upstreams'; });
    await page.locator('.balance').first().waitFor();
  }],
  ['gateway-usage', async (page) => {
    await page.evaluate(() => { location.hash = '#/gateway//usage'; });
    await page.locator('.sums').waitFor();
  }],
  ['gateway-budgets', async (page) => {
    await page.evaluate(() => { location.hash = '#/gateway//budgets'; });
    await page.locator('.budgets .rowlike').nth(1).waitFor();
  }],
  ['gateway-filters-zh', async (page) => {
    await page.evaluate(() => { location.hash = '#/gateway//filters'; });
    await page.locator('.lines-edit').waitFor();
  }],
  ['gateway-session', async (page) => {
    await page.getByText('Login accepts the password').first().click();
    await page.locator('.md table').waitFor();
    await page.locator('.line.at-gateway').click();
    await page.locator('dialog .choices label').nth(3).waitFor();
  }],
  ['offline', async (page) => {
    await page.getByText('Login accepts the password').first().click();
    await page.locator('.md table').waitFor();
    server.away = true;
    server.cut();
    await page.locator('.main .line.down').waitFor();
  }],
];

describe.each(['phone', 'desk'] as const)('%s', (size) => {
  test.each(screens)('%s, light and dark', async (name, reach) => {
    // A name that ends so is a machine of Chinese people, with a browser of theirs.
    const lang = name.endsWith('-zh') ? 'zh' : 'en';
    const context = await device(browser, { size, lang, scale: 1 });
    const page = await context.newPage();
    server.away = false;
    const token = [name.startsWith('gateway') ? 'gateway' : '', lang === 'zh' ? 'zh' : ''].filter(Boolean).join('-') || 'demo';
    await page.goto(`${base}/?token=${token}`);
    await page.getByRole('heading', { name: 'studio' }).waitFor({ state: 'attached' });
    await page.locator('.item').first().waitFor();
    await reach(page);
    for (const theme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme: theme });
      await settled(page);
      if (MAKE) {
        const path = join(OUT, `${name}-${size}-${theme}.png`);
        await page.screenshot({ path });
        shrink(path);
      }
      expect(await seriousFaults(page)).toEqual([]);
    }
    // On a phone a page that is too wide widens the window itself.
    expect(await page.evaluate(() => [innerWidth, document.documentElement.scrollWidth])).toEqual([SIZES[size].width, SIZES[size].width]);
    expect(faults.get(page)).toEqual([]);
    server.away = false;
    await context.close();
  });
});
