//! The gateway's pages with nothing pretended but the models: the real arpc with `--gateway`, the real gateway that it
//! starts, the real Claude Code, two loopback model APIs.

import type { Browser } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { device, faults, openBrowser, seriousFaults } from './browser';
import { knows, RealMachine } from './machine';
import { cannotRun, Visit } from './visit';

describe.skipIf(cannotRun('the real gateway') || !knows('--gateway'))('real gateway', { timeout: 240_000 }, () => {
  const machine = new RealMachine().withGateway();
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
  const api = async <T>(path: string): Promise<T> => (await fetch(`${machine.base}/api/gateway${path}${path.includes('?') ? '&' : '?'}token=demo`)).json() as Promise<T>;

  test('phone: a session starts it, is moved to an upstream that was added there, hides a word and fails over', async () => {
    const second = await machine.anotherModel();
    const at = visit = await Visit.open(browser, machine, { size: 'phone' });
    const { page } = at;
    const tab = async (name: string): Promise<void> => {
      await page.locator('.tabs').getByRole('link', { name }).click();
      await page.locator('.tabs [aria-current=page]', { hasText: name }).waitFor();
    };
    await page.locator('.nav').getByRole('link', { name: 'Gateway' }).click();
    await page.getByText('arpc gateway start').waitFor();
    await page.locator('.nav').getByRole('link', { name: /Sessions/ }).click();

    await at.begin('say first through it');
    await at.said('first through it');
    await at.done(1);
    const line = page.locator('.line.at-gateway');
    await line.getByText(/main/).waitFor({ timeout: 60_000 });
    expect(await seriousFaults(page)).toEqual([]);
    const place = page.url();

    // An upstream is added from the phone, tested, and the session is moved to it.
    await page.evaluate(() => { location.hash = '#/gateway//upstreams'; });
    await page.locator('.rows button', { hasText: 'main' }).first().waitFor();
    await page.getByRole('button', { name: 'Add an upstream' }).first().click();
    const sheet = page.locator('dialog');
    await sheet.getByLabel('Name').fill('second');
    await sheet.getByLabel('Address').fill(second.url);
    await sheet.getByLabel('Token (Authorization)').fill('key-of-second');
    await sheet.getByRole('button', { name: 'Add', exact: true }).click();
    await page.locator('.rows button', { hasText: 'second' }).first().click();
    await sheet.getByRole('button', { name: 'Test' }).click();
    await sheet.getByText(/It answered in/).waitFor({ timeout: 60_000 });
    await sheet.getByRole('button', { name: 'Close' }).click();
    expect(await page.locator('html').innerHTML()).not.toContain('key-of-second');
    expect(JSON.stringify(await api('/upstreams'))).not.toMatch(/key-of-/);

    await page.goto(place);
    await line.click();
    await sheet.getByLabel('second').check();
    await sheet.getByRole('button', { name: 'Close' }).click();
    await at.send('say second through it');
    await at.said('second through it');
    await at.done(2);
    await line.getByText(/second/).waitFor({ timeout: 60_000 });
    expect(await second.asked()).toContain('say second through it');

    // A word is hidden from the upstream, and back in the answer.
    await page.evaluate(() => { location.hash = '#/gateway//filters'; });
    await page.getByLabel('Words to hide, one a line').fill('hushword');
    await page.getByLabel('against what stands above').fill('tell hushword');
    await page.getByRole('button', { name: 'Try', exact: true }).click();
    await page.getByText('Word: 1 ×').waitFor();
    await page.getByRole('button', { name: 'Save' }).click();
    await page.locator('.save-bar').waitFor({ state: 'detached' });
    expect(await seriousFaults(page)).toEqual([]);
    await page.goto(place);
    await at.send('say it was hushword');
    await at.said('it was hushword');
    await at.done(3);
    expect(await second.asked()).not.toContain('hushword');
    await line.getByText(/secrets? hidden/).waitFor({ timeout: 60_000 });

    // The upstream goes away in mid-session: nothing is to be done.
    await second.end();
    await at.send('say third goes on');
    await at.said('third goes on');
    await at.done(4);
    await line.getByText(/failover/).waitFor({ timeout: 60_000 });

    // Every request is told, and counted as the gateway counts.
    await page.evaluate(() => { location.hash = '#/gateway//requests'; });
    await page.locator('.gateway .rows li').nth(3).waitFor();
    await tab('Usage');
    const { total } = await api<{ total: { requests: number } }>('/usage?by=day');
    await expect.poll(async () => Number((await page.locator('.sums tfoot td').first().innerText()).replaceAll(',', ''))).toBe(total.requests);
    await tab('Overview');
    await page.locator('.figures').first().waitFor();
    expect(await seriousFaults(page)).toEqual([]);
  });

  test('desk: at its own address the gateway is all there is', async () => {
    const { listen } = await api<{ listen: { ui: string } }>('');
    const context = await device(browser, { size: 'desk', lang: 'zh' });
    const page = await context.newPage();
    await page.goto(`http://${listen.ui}/`);
    await page.locator('.figures').first().waitFor();
    expect(await page.locator('.nav a').allInnerTexts()).toEqual(['网关', '设置']);
    await page.locator('.tabs').getByRole('link', { name: '上游' }).click();
    await page.locator('.rows button', { hasText: 'second' }).first().waitFor();
    await page.locator('.tabs').getByRole('link', { name: '路由' }).click();
    await page.getByRole('radio', { name: '替换模型' }).check({ force: true });
    await page.getByRole('button', { name: '添加一条' }).first().click();
    await page.getByLabel('请求这个模型时').fill('claude-haiku-*');
    await page.getByLabel('改用这个模型').fill('claude-sonnet-5');
    await page.getByRole('button', { name: '保存' }).click();
    await page.locator('.save-bar').waitFor({ state: 'detached' });
    const { config } = await api<{ config: { mode: string; modelMappings: { claude: unknown[] } } }>('/routes');
    expect([config.mode, config.modelMappings.claude]).toEqual(['model-mapping', [{ source: 'claude-haiku-*', target: 'claude-sonnet-5', source_type: 'model' }]]);
    expect(await seriousFaults(page)).toEqual([]);
    expect(faults.get(page)).toEqual([]);
    await context.close();
  });
});
