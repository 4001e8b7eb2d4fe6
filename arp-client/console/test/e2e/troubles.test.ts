//! What a person does when the address changed, when a session is in use elsewhere, when something went wrong, and
//! when one is deleted; in a real browser against the pretended machine.

import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { liveMachine } from '../../dev/mock/data';
import type { MockEdge } from '../../dev/mock/edge';
import { MockServer } from '../../dev/mock/server';
import { clocked, device, faults, halt, openBrowser, seriousFaults, type Size } from './browser';

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

const open = async (size: Size, hash = '', lang: 'en' | 'zh' = 'en'): Promise<void> => {
  context = await device(browser, { size, lang });
  page = await context.newPage();
  await page.goto(`${base}/?token=demo${hash}`);
  await page.locator('.shell').waitFor();
};
/** Opens a line of the list. */
const enter = async (size: Size, title: string): Promise<void> => {
  await open(size);
  await page.locator('.item', { hasText: title }).first().click();
};
const deleted = (): string[] => server.seen.filter(({ method }) => method === 'DELETE').map(({ url }) => url.replace(/.*\?/, ''));

describe.each(['phone', 'desk'] as const)('%s', (size) => {
  test('the_public_address_is_shown_and_a_change_is_told_until_it_is_put_away', async () => {
    edge.info.tunnel = { state: 'connected', backend: 'cloudflare', public_url: 'https://old.example/?token=secret', previous_url: null };
    await open(size, '#/settings');
    const row = page.locator('.tunnel');
    await row.getByText('https://old.example/', { exact: true }).waitFor();
    await row.getByText('Connected · Cloudflare Tunnel').waitFor();
    expect(await page.locator('body').innerText()).not.toContain('secret');
    await page.evaluate(() => {
      Object.defineProperty(navigator, 'clipboard', { value: { writeText: async (text: string) => void Object.assign(globalThis, { copied: text }) } });
    });
    await row.getByRole('button', { name: 'Copy' }).click();
    await page.getByText('Copied').waitFor();
    expect(await page.evaluate(() => (globalThis as { copied?: string }).copied)).toBe('https://old.example/?token=secret');

    edge.tunnel({ state: 'reconnecting', attempt: 1 });
    await row.getByText('Lost, trying again…').waitFor();
    edge.tunnel({ state: 'connected', backend: 'cloudflare', public_url: 'https://new.example', previous_url: 'https://old.example/?token=secret' });
    await row.getByText('The address of this machine changed: https://new.example (before: https://old.example/)').waitFor();
    expect(await seriousFaults(page)).toEqual([]);

    await page.evaluate(() => { location.hash = '#/'; });
    const news = page.locator('.line.news');
    await news.getByText('The address of this machine changed: https://new.example (before: https://old.example/)').waitFor();
    expect(await seriousFaults(page)).toEqual([]);
    await news.getByRole('button', { name: 'Close' }).click();
    await news.waitFor({ state: 'detached' });
    await page.reload();
    await page.locator('.item').first().waitFor();
    await expect.poll(() => news.count()).toBe(0);
    // The next change is told again.
    edge.tunnel({ state: 'connected', backend: 'cloudflare', public_url: 'https://newer.example', previous_url: 'https://new.example' });
    await news.getByText('https://newer.example').waitFor();
  });

  test('a_doubled_tap_stops_deletes_and_discards_nothing', async () => {
    context = await device(browser, { size });
    page = await context.newPage();
    await clocked(page);
    await page.goto(`${base}/?token=demo`);
    await page.locator('.item', { hasText: 'Move the shop' }).first().click();
    await page.locator('.doing').waitFor();
    await halt(page);
    const twice = async (name: string): Promise<void> => {
      await page.getByRole('button', { name: 'More' }).click();
      await page.clock.runFor(1_000);
      const box = await page.locator('dialog').getByRole('button', { name }).boundingBox();
      if (!box) throw new Error(`no ${name}`);
      for (let n = 0; n < 2; n++) {
        if (size === 'phone') await page.touchscreen.tap(box.x + box.width / 2, box.y + box.height / 2);
        else await page.mouse.click(box.x + box.width / 2, box.y + box.height / 2);
      }
      // At a desk the second may fall on what lets go of it.
      const danger = page.locator('dialog .button.danger');
      if (size === 'desk' && !(await danger.count())) return;
      await danger.waitFor();
      expect(await page.locator('dialog .button.danger').isDisabled()).toBe(true);
      await page.clock.runFor(600);
      expect(await page.locator('dialog .button.danger').isEnabled()).toBe(true);
      await page.keyboard.press('Escape');
      await page.locator('dialog').waitFor({ state: 'detached' });
    };
    await twice('Stop session');
    await twice('Delete session');
    expect(server.seen.filter(({ method, url }) => method === 'DELETE' || url.includes('/cancel'))).toEqual([]);
  });

  test('two_taps_in_the_same_place_take_back_one_message', async () => {
    context = await device(browser, { size });
    page = await context.newPage();
    await clocked(page);
    await page.goto(`${base}/?token=demo`);
    await page.locator('.item', { hasText: 'Move the shop' }).first().click();
    await page.locator('.doing').waitFor();
    for (const text of ['say first', 'say second']) {
      await page.getByLabel('Message').fill(text);
      await page.getByRole('button', { name: 'Send', exact: true }).click();
      await page.locator('.dock .queue li', { hasText: text }).waitFor();
    }
    const queue = (): string[] => edge.sessions.get('runs')?.object.queue.map(({ text }) => text) ?? [];
    await halt(page);
    const row = page.locator('.dock .queue li').first();
    const tap = (): Promise<void> => row.getByRole('button', { name: 'Take back' }).click({ noWaitAfter: true });
    await tap();
    while ((await page.locator('.dock .queue li').count()) > 1) await page.clock.runFor(16);
    // Another one lies below the finger now.
    await tap();
    await page.clock.runFor(450);
    expect(queue()).toEqual(['say second']);
    await page.clock.runFor(600);
    await tap();
    await expect.poll(queue).toEqual([]);
    await page.clock.resume();
  });

  test('deleting_asks_which_and_the_safe_choice_stands_first', async () => {
    await enter(size, 'Login accepts the password');
    await page.locator('.md table').waitFor();
    await page.getByRole('button', { name: 'More' }).click();
    await page.getByRole('button', { name: 'Delete session' }).click();
    const dialog = page.locator('dialog');
    const choices = dialog.getByRole('radio');
    expect(await choices.nth(0).isChecked()).toBe(true);
    await dialog.getByText('Claude Code keeps its own history').waitFor();
    expect(await seriousFaults(page)).toEqual([]);
    await dialog.getByRole('button', { name: 'Delete', exact: true }).click();
    await dialog.waitFor({ state: 'detached' });
    expect(deleted()).toEqual(['history=keep&force=true']);
    expect(edge.sessions.has('show')).toBe(false);
  });

  test('the_agents_history_goes_too_if_that_is_chosen_also_while_a_turn_runs', async () => {
    await enter(size, 'Move the shop');
    await page.locator('.doing').waitFor();
    await page.getByRole('button', { name: 'More' }).click();
    await page.getByRole('button', { name: 'Delete session' }).click();
    await page.locator('dialog').getByRole('radio', { name: 'Also the history of Claude Code' }).check();
    await page.locator('dialog').getByRole('button', { name: 'Delete', exact: true }).click();
    await page.locator('dialog').waitFor({ state: 'detached' });
    // The turn is ended by the first; neither is forced on what somebody else has open.
    expect(deleted()).toEqual(['history=delete', 'history=delete']);
    expect(edge.sessions.has('runs')).toBe(false);
  });

  test('a_history_that_a_terminal_has_open_stays_and_that_is_told', async () => {
    (edge.sessions.get('show') as { inUse: boolean }).inUse = true;
    await enter(size, 'Login accepts the password');
    await page.getByRole('button', { name: 'More' }).click();
    await page.getByRole('button', { name: 'Delete session' }).click();
    await page.locator('dialog').getByRole('radio', { name: 'Also the history of Claude Code' }).check();
    await page.locator('dialog').getByRole('button', { name: 'Delete', exact: true }).click();
    await page.locator('.toast.bad', { hasText: 'open in another process' }).waitFor();
    expect(edge.sessions.has('show')).toBe(true);
  });

  test('a_message_to_a_session_that_is_in_use_goes_on_in_another_branch', async () => {
    (edge.sessions.get('show') as { inUse: boolean }).inUse = true;
    await enter(size, 'Login accepts the password');
    await page.locator('.md table').waitFor();
    await page.getByLabel('Message').fill('say in the copy');
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    const letter = page.locator('.dock .queue li.failed');
    await letter.getByText('open in another process').waitFor();
    await letter.getByRole('button', { name: 'Open another branch' }).click();
    await page.locator('.md', { hasText: 'in the copy' }).waitFor();
    expect([...edge.sessions.values()].some(({ object }) => object.parent_id === 'show')).toBe(true);
    await expect.poll(() => page.locator('.dock .queue li').count()).toBe(0);
    expect(await page.evaluate(() => localStorage.getItem('arp.outbox'))).toBe(null);
  });

  test('resuming_what_a_terminal_has_open_offers_another_branch', async () => {
    edge.pastInUse.add('h1');
    await enter(size, 'Why is the build slow');
    await page.locator('.md', { hasText: 'Two places need a change' }).waitFor();
    await page.getByLabel('Resume').fill('say branched');
    await page.getByRole('button', { name: 'Resume' }).click();
    const toast = page.locator('.toast.bad', { hasText: 'open in another process' });
    await toast.getByRole('button', { name: 'Open another branch' }).click();
    await page.locator('.md', { hasText: 'branched' }).waitFor();
  });

  test('going_on_with_the_last_session_offers_another_branch_if_it_is_in_use', async () => {
    edge.pastInUse.add('h1');
    await open(size, '#/new');
    await page.getByLabel('Task').fill('say from the new screen');
    await page.locator('.places .pick', { hasText: /^app$/ }).click();
    await page.getByRole('switch', { name: /Continue the last session here/ }).check({ force: true });
    await page.getByRole('button', { name: 'Resume' }).click();
    await page.locator('.toast.bad').getByRole('button', { name: 'Open another branch' }).click();
    await page.locator('.md', { hasText: 'from the new screen' }).waitFor();
    expect([...edge.sessions.values()].filter(({ object }) => object.title === 'Why is the build slow since last week?').length).toBe(1);
  });

  test('what_went_wrong_is_in_the_list_and_over_the_session_and_is_tried_again', async () => {
    const cut = edge.sessions.get('show');
    cut?.changed({ status: 'parked', problem: { kind: 'turn_cut', message: 'the agent ended in the middle of a turn', api_status: null, can_retry: true } });
    await open(size);
    await page.locator('.item', { hasText: 'the agent ended in the middle of a turn' }).click();
    const trouble = page.locator('.line.trouble');
    await trouble.getByText('the agent ended in the middle of a turn').waitFor();
    expect(await seriousFaults(page)).toEqual([]);
    await trouble.getByRole('button', { name: 'Try again' }).click();
    await trouble.waitFor({ state: 'detached' });
    expect(cut?.object.turns).toBe(1);
    expect(server.seen.filter(({ url }) => url.endsWith('/retry')).length).toBe(1);
  });
});

test('all_of_this_is_said_in_chinese', async () => {
  edge.info.tunnel = { state: 'connected', backend: 'ngrok', public_url: 'https://new.example', previous_url: 'https://old.example' };
  const show = edge.sessions.get('show');
  if (show) show.inUse = true;
  show?.changed({ status: 'failed', problem: { kind: 'api_error', message: 'the model API refused: 529', api_status: 529, can_retry: true } });
  await open('phone', '', 'zh');
  await page.locator('.line.news', { hasText: '这台机器的地址已变更：https://new.example（原为：https://old.example）' }).waitFor();
  await page.locator('.item', { hasText: '模型接口拒绝了请求。状态码 529。' }).click();
  await page.locator('.line.trouble').getByRole('button', { name: '重试' }).click();
  await page.locator('.toast.bad', { hasText: '这个会话正在别处使用' }).getByRole('button', { name: '另开分支' }).waitFor();
  await page.getByRole('button', { name: '更多' }).click();
  await page.getByRole('button', { name: '删除会话' }).click();
  await page.locator('dialog').getByText('只删除这里的记录').waitFor();
  await page.locator('dialog').getByText('连同 Claude Code 的历史一起删除').waitFor();
});
