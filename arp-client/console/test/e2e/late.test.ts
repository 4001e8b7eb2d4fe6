//! Answers that come late: they call nobody back, close nothing that was opened since, and undo nothing that was
//! written since. In a real browser against a pretended machine.

import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { liveMachine } from '../../dev/mock/data';
import type { MockEdge } from '../../dev/mock/edge';
import { busyGateway } from '../../dev/mock/gateway';
import { MockServer } from '../../dev/mock/server';
import { device, faults, frames, openBrowser, type Size } from './browser';

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
  edge = liveMachine('studio');
  server.edges.set('demo', edge);
  base = await server.listen();
});
afterEach(async () => {
  expect(faults.get(page) ?? []).toEqual([]);
  await context.close();
  await server.close();
});

const open = async (size: Size, hash = ''): Promise<void> => {
  context = await device(browser, { size, held: true });
  page = await context.newPage();
  await page.goto(`${base}/?token=demo${hash}`);
  await page.locator('.shell').waitFor();
};
/** Opens a session of the list, from wherever the page is. */
const enter = async (title: string): Promise<void> => {
  await page.evaluate(() => { location.hash = '#/'; });
  await page.locator('.item', { hasText: title }).first().click();
  await page.locator('.main h1', { hasText: title }).waitFor();
};
/** Holds such requests back. `asked`: one is there; `answer`: they go on, and it has been answered when this is over. */
const hold = async (method: string, where: RegExp): Promise<{ asked: Promise<unknown>; answer(): Promise<void> }> => {
  let go = (): void => undefined;
  const gone = new Promise<void>((resolve) => { go = resolve; });
  await context.route(where, async (route) => {
    if (route.request().method() === method) await gone;
    await route.continue().catch(() => undefined);
  });
  const asked = page.waitForRequest((request) => request.method() === method && where.test(request.url()));
  return {
    asked,
    answer: async () => {
      const answered = page.waitForResponse((response) => response.request().method() === method && where.test(response.url()));
      go();
      await (await answered).finished();
      await frames(page);
    },
  };
};

describe.each(['phone', 'desk'] as const)('%s', (size) => {
  test('a_session_that_began_while_one_went_elsewhere_is_offered_and_its_task_is_not_there_to_begin_again', async () => {
    await open(size, '#/new');
    const start = await hold('POST', /\/api\/sessions$/);
    await page.getByLabel('Task').fill('say it began');
    await page.getByRole('button', { name: 'Start' }).click();
    await start.asked;
    await enter('Login accepts the password');
    await page.evaluate(() => { location.hash = '#/new'; });
    expect(await page.getByLabel('Task').inputValue()).toBe('say it began');
    await enter('Login accepts the password');
    const place = page.url();
    await start.answer();
    const toast = page.locator('.toast', { hasText: 'Started' });
    await toast.waitFor();
    expect(page.url()).toBe(place);
    await toast.getByRole('button', { name: 'Open the live session' }).click();
    await page.locator('.bubble', { hasText: 'say it began' }).waitFor();
    await page.evaluate(() => { location.hash = '#/new'; });
    await page.getByLabel('Task').waitFor();
    expect(await page.getByLabel('Task').inputValue()).toBe('');
    expect(server.seen.filter(({ method, url }) => method === 'POST' && url.endsWith('/api/sessions'))).toHaveLength(1);
  });

  test('a_start_that_is_answered_leaves_what_was_written_for_the_next', async () => {
    await open(size, '#/new');
    const start = await hold('POST', /\/api\/sessions$/);
    await page.getByLabel('Task').fill('say the first');
    await page.getByRole('button', { name: 'Start' }).click();
    await start.asked;
    await page.evaluate(() => { location.hash = '#/settings'; });
    await page.locator('.main h1', { hasText: 'Settings' }).waitFor();
    await page.evaluate(() => { location.hash = '#/new'; });
    await page.getByLabel('Task').fill('say the second');
    const toSession = page.waitForURL(/#\/s\//);
    await start.answer();
    await toSession;
    await page.evaluate(() => { location.hash = '#/new'; });
    await page.getByLabel('Task').waitFor();
    expect(await page.getByLabel('Task').inputValue()).toBe('say the second');
  });

  test('what_is_open_by_then_stays_open', async () => {
    await open(size);
    await enter('Login accepts the password');
    const change = await hold('PATCH', /\/api\/sessions\/show$/);
    await page.locator('.composer-foot .chip').first().click();
    await page.locator('dialog button', { hasText: 'Plan' }).first().click();
    await change.asked;
    await page.keyboard.press('Escape');
    await page.locator('dialog').waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'More' }).click();
    const menu = await page.locator('dialog').elementHandle();
    await change.answer();
    await page.locator('.composer-foot .chip', { hasText: 'Plan' }).waitFor();
    expect(await menu?.evaluate((box) => box.isConnected)).toBe(true);
  });

  test('a_session_that_is_deleted_at_last_leaves_the_reader_of_another_where_he_is', async () => {
    await open(size);
    await enter('Login accepts the password');
    const remove = await hold('DELETE', /\/api\/sessions\/show/);
    await page.getByRole('button', { name: 'More' }).click();
    await page.locator('dialog').getByRole('button', { name: 'Delete session' }).click();
    await page.locator('dialog').getByRole('button', { name: 'Delete', exact: true }).click();
    await remove.asked;
    await page.keyboard.press('Escape');
    await page.locator('dialog').waitFor({ state: 'detached' });
    await enter('Move the shop');
    const place = page.url();
    await remove.answer();
    await page.locator('.item', { hasText: 'Login accepts the password' }).waitFor({ state: 'detached' });
    expect(page.url()).toBe(place);
    await page.locator('.main h1', { hasText: 'Move the shop' }).waitFor();
  });

  test('the_rest_of_a_directory_is_not_shown_in_another', async () => {
    await open(size);
    await page.locator('.item').first().waitFor({ state: 'attached' });
    const entry = (name: string, type: string): object => ({ name, type, size: 1, mtime: 1_795_000_000 });
    await context.route(/\/api\/fs\/home\/me\/app(\?offset=\d+)?$/, (route) => {
      const rest = route.request().url().includes('offset');
      const entries = rest ? [entry('late.txt', 'file')] : [entry('src', 'directory')];
      return route.fulfill({ json: { type: 'directory', path: '/home/me/app', total: 2, entries } });
    });
    await page.evaluate(() => { location.hash = '#/files'; });
    await page.locator('.main a', { hasText: 'app' }).click();
    await page.locator('.main a', { hasText: 'src' }).waitFor();
    const rest = await hold('GET', /\/api\/fs\/home\/me\/app\?offset/);
    await page.getByRole('button', { name: 'Load more' }).click();
    await rest.asked;
    await page.locator('.main a', { hasText: 'src' }).click();
    await page.locator('.main a', { hasText: 'login.ts' }).waitFor();
    await rest.answer();
    expect(await page.locator('.main a', { hasText: 'late.txt' }).count()).toBe(0);
    expect(await page.locator('.main a', { hasText: 'login.ts' }).count()).toBe(1);
  });

  test('what_is_changed_while_a_change_is_saved_stays_to_be_saved', async () => {
    const gateway = edge.withGateway(busyGateway());
    await open(size, '#/settings');
    await page.locator('.gateway-link a').click();
    for (const [tab, add, field, way] of [['Budgets', 'Add a budget', 'Name', 'budgets'], ['Filters', 'Add a rule', 'Find', 'filters']] as const) {
      await page.locator('.tabs').getByRole('link', { name: tab }).click();
      await page.getByRole('button', { name: add }).click();
      const text = page.getByLabel(field, { exact: true }).last();
      await text.fill('first');
      if (way === 'budgets') await page.getByLabel('Dollars').last().fill('1');
      const save = await hold('PUT', new RegExp(`/api/gateway/${way}$`));
      const button = page.getByRole('button', { name: 'Save' }).first();
      await button.click();
      await save.asked;
      await text.fill('second');
      await save.answer();
      await page.locator('.toast', { hasText: 'Saved' }).first().waitFor();
      expect(await text.inputValue()).toBe('second');
      await button.click();
      await expect.poll(() => JSON.stringify(way === 'budgets' ? gateway.budgets : gateway.filters.rules)).toContain('second');
      await page.locator('.save-bar').waitFor({ state: 'detached' });
    }
  });
});
