//! Every main screen, in both sizes and themes: axe finds nothing serious, nothing spills over the side, and
//! the pictures of docs/screenshots are made (with `SCREENSHOTS=1`).

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { liveMachine } from '../../dev/mock/data';
import { MockServer } from '../../dev/mock/server';
import { device, faults, openBrowser, seriousFaults, type Look } from './browser';

const OUT = process.env['SCREENSHOTS_DIR'] ?? join(import.meta.dirname, '../../../../docs/screenshots');
const MAKE = Boolean(process.env['SCREENSHOTS']);

let browser: Browser;
let server: MockServer;
let base: string;

beforeAll(async () => {
  browser = await openBrowser();
  server = new MockServer();
  server.edges.set('demo', liveMachine());
  base = await server.listen();
  mkdirSync(OUT, { recursive: true });
});
afterAll(async () => {
  await browser.close();
  await server.close();
});

const looks: Look[] = (['phone', 'desk'] as const).flatMap((size) => (['light', 'dark'] as const).map((theme) => ({ size, theme })));

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
  ['new', async (page) => {
    await page.getByRole('link', { name: 'What should be done?' }).click();
    await page.getByRole('button', { name: 'Start' }).waitFor();
    await page.getByLabel('Task').fill('Move the price rules out of the basket and give them tests of their own.');
  }],
  ['history', async (page) => {
    await page.getByRole('link', { name: 'History' }).click();
    await page.getByText('~/shop').waitFor();
  }],
  ['files', async (page) => {
    await page.evaluate(() => { location.hash = `#/files/?path=${encodeURIComponent('/home/me/app/src/login.ts')}`; });
    await page.locator('.source').waitFor();
  }],
  ['settings', async (page) => {
    await page.getByRole('link', { name: 'Settings' }).click();
    await page.getByText('Claude Code').waitFor();
  }],
  ['offline', async (page) => {
    await page.getByText('Login accepts the password').first().click();
    await page.locator('.md table').waitFor();
    server.away = true;
    server.cut();
    await page.locator('.main .line.down').waitFor();
  }],
];

describe.each(looks)('$size $theme', (look) => {
  test.each(screens)('%s', async (name, reach) => {
    const context = await device(browser, { ...look, scale: MAKE ? 2 : 1 });
    const page = await context.newPage();
    server.away = false;
    await page.goto(`${base}/?token=demo`);
    await page.getByRole('heading', { name: 'studio' }).waitFor({ state: 'attached' });
    await page.locator('.item').first().waitFor();
    await reach(page);
    await page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.effect?.getComputedTiming().iterations === Infinity ? null : animation.finished.catch(() => null))));
    if (MAKE) await page.screenshot({ path: join(OUT, `${name}-${look.size}-${look.theme}.png`) });
    const spill = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    expect(spill).toBeLessThanOrEqual(0);
    expect(await seriousFaults(page)).toEqual([]);
    expect(faults.get(page)).toEqual([]);
    server.away = false;
    await context.close();
  });
});
