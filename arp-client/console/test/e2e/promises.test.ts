//! What the console promises of machines, messages, ways back, speed and first minutes, in a real browser against
//! pretended machines, on a phone (touch) and at a desk (keyboard).

import { join } from 'node:path';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { liveMachine } from '../../dev/mock/data';
import type { MockEdge } from '../../dev/mock/edge';
import { MockServer } from '../../dev/mock/server';
import { drive } from './driven';
import { device, frames, faults, openBrowser, seriousFaults, type Size } from './browser';

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

const open = async (size: Size, lang: 'en' | 'zh' = 'en', hash = ''): Promise<void> => {
  context = await device(browser, { size, lang });
  page = await context.newPage();
  await page.goto(`${base}/?token=demo${hash}`);
  await page.locator('.shell').waitFor();
};
const list = (): Promise<void> => page.locator('.item').first().waitFor();
/** Has the machine said who it is? */
const known = (): Promise<void> => page.locator('.inbox h1', { hasText: 'studio' }).waitFor({ state: 'attached' });
const item = (text: string) => page.locator('.item', { hasText: text }).first();
const begin = async (text: string): Promise<void> => {
  await page.getByRole('link', { name: 'What should be done?' }).click();
  await page.getByLabel('Task').fill(text);
  await page.getByRole('button', { name: 'Start' }).click();
  await page.locator('.bubble').waitFor();
};
const messages = (id: string): string[] => (edge.sessions.get(id)?.log ?? []).flatMap((event) => (event.type === 'user_message' ? [event.text] : []));
/** Adds a second machine to this device and waits until it is known. */
const addLaptop = async (): Promise<void> => {
  server.edges.set('other', liveMachine('laptop'));
  await page.evaluate(() => { location.hash = '#/settings'; });
  await page.getByRole('button', { name: 'Add a machine' }).click();
  await page.getByLabel('Address with the token').fill(`${base}/?token=other`);
  await page.getByRole('button', { name: 'Add', exact: true }).click();
  await page.locator('.rowlike', { hasText: 'laptop' }).waitFor();
  await page.evaluate(() => { location.hash = '#/'; });
};

describe.each(['phone', 'desk'] as const)('%s', (size) => {
  test('every_request_names_its_machine_in_a_form_that_means_nothing_else', async () => {
    await open(size);
    await list();
    const mark = server.seen.length;
    await item('Login accepts the password').click();
    await page.locator('.md table').waitFor();
    await page.getByLabel('Message').fill('say thanks');
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await page.locator('.bubble', { hasText: 'say thanks' }).waitFor();
    const asked = server.seen.slice(mark).filter(({ url }) => url.includes('/api/'));
    expect(asked.length).toBeGreaterThan(2);
    for (const { url, token } of asked) {
      expect(url).not.toMatch(/[?&]token=/);
      expect(token).toBe('demo');
    }
    expect(asked.some(({ url }) => url.startsWith('/t/demo/api/sessions/'))).toBe(true);
  });

  test('a_machine_whose_token_was_revoked_is_told_and_never_becomes_another', async () => {
    await open(size);
    await list();
    await addLaptop();
    await page.getByText('4 need you').waitFor();
    server.edges.delete('other');
    server.cut();
    await page.reload();
    await page.locator('.line.down', { hasText: 'laptop' }).getByText('does not know this token').waitFor();
    await page.getByText('2 need you').waitFor();
    await expect.poll(() => page.getByText('laptop · shop').count()).toBe(0);
    // Nor does a start go anywhere else.
    const before = edge.sessions.size;
    const answer = await page.evaluate(async (at) => (await fetch(`${at}/api/sessions`, { method: 'POST', headers: { 'X-ARP-Token': 'other', 'Content-Type': 'application/json' }, body: '{"prompt":"x"}' })).status, base);
    expect(answer).toBe(404);
    expect(edge.sessions.size).toBe(before);
  });

  test('a_token_that_leads_to_another_machine_shows_and_starts_nothing_until_that_is_confirmed', async () => {
    await open(size);
    await list();
    await known();
    const stranger = liveMachine('intruder');
    server.edges.set('demo', stranger);
    server.cut();
    await page.reload();
    const panel = page.locator('.stranger');
    await panel.getByRole('heading', { name: 'This is not studio' }).waitFor();
    await panel.getByText('intruder answers where studio was kept').waitFor();
    await expect.poll(() => page.locator('.item').count()).toBe(0);
    const before = stranger.sessions.size;
    await page.evaluate(() => { location.hash = '#/new'; });
    if (await page.getByLabel('Task').isVisible()) {
      await page.getByLabel('Task').fill('rm everything');
      await page.getByRole('button', { name: 'Start' }).click();
    }
    expect(stranger.sessions.size).toBe(before);
    await page.evaluate(() => { location.hash = '#/'; });
    await panel.getByRole('button', { name: 'Use intruder from now on' }).click();
    await page.getByRole('heading', { name: 'intruder', level: 1 }).waitFor();
    await list();
    await page.reload();
    await list();
    await expect.poll(() => panel.count()).toBe(0);
    expect([...stranger.sessions.values()].filter(({ object }) => object.first_message === 'rm everything')).toEqual([]);
  });

  test('a_machine_that_comes_back_after_another_answered_is_shown_again', async () => {
    await open(size);
    await list();
    await known();
    server.edges.set('demo', liveMachine('intruder'));
    server.cut();
    await page.locator('.stranger').waitFor();
    server.edges.set('demo', edge);
    await page.locator('.stranger').waitFor({ state: 'detached', timeout: 30_000 });
    await list();
  });

  test('a_machine_reached_by_cookie_and_by_token_is_one', async () => {
    await open(size);
    await list();
    const second = await context.newPage();
    await second.goto(`${base}/`);
    await second.locator('.item').first().waitFor();
    // Past sessions come after those that live, to each page when they come.
    await expect.poll(async () => (await second.locator('.item').count()) - (await page.locator('.item').count())).toBe(0);
    await second.getByRole('heading', { name: 'studio', level: 1 }).waitFor();
    await second.getByText('2 need you').waitFor();
    // It goes on by the token that this device keeps: another tab's cookie does not move it.
    server.edges.set('other', liveMachine('laptop'));
    await context.addCookies([{ name: 'arp_token', value: 'other', url: base }]);
    server.cut();
    await second.reload();
    await second.locator('.item').first().waitFor();
    await expect.poll(() => second.getByRole('heading', { level: 1 }).first().innerText()).toMatch(/studio/);
  });

  test('a_message_written_while_the_machine_is_away_is_kept_over_a_reload_and_sent_once', async () => {
    await open(size);
    await list();
    await page.evaluate(() => navigator.serviceWorker.ready);
    await page.evaluate(async () => { while (!(await caches.match(new URL('./', location.href).href))) await new Promise((resolve) => setTimeout(resolve, 50)); });
    await item('Login accepts the password').click();
    await page.locator('.md table').waitFor();
    const id = 'show';
    server.away = true;
    server.cut();
    for (const text of ['say first', 'say second']) {
      await page.getByLabel('Message').fill(text);
      await page.getByRole('button', { name: 'Send', exact: true }).click();
    }
    await page.locator('.dock .queue li.waiting', { hasText: 'say second' }).waitFor();
    await page.reload();
    // What is to be read comes with the machine; what was written is there.
    await expect.poll(() => page.evaluate(() => (JSON.parse(localStorage.getItem('arp.outbox') ?? '[]') as { text: string }[]).map(({ text }) => text))).toEqual(['say first', 'say second']);
    server.away = false;
    await page.locator('.bubble', { hasText: 'say second' }).waitFor({ timeout: 30_000 });
    await expect.poll(() => messages(id).slice(-2)).toEqual(['say first', 'say second']);
    await page.locator('.dock .queue').waitFor({ state: 'detached' });
    expect(messages(id).filter((text) => text === 'say first')).toHaveLength(1);
  });

  test('a_message_whose_answer_was_lost_is_not_sent_twice', async () => {
    await open(size);
    await item('Login accepts the password').click();
    await page.locator('.md table').waitFor();
    server.losesAnswers = true;
    await page.getByLabel('Message').fill('say once');
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await page.locator('.bubble', { hasText: 'say once' }).waitFor();
    // It was sent again, and again not answered.
    await expect.poll(() => server.seen.filter(({ method, url }) => method === 'POST' && url.includes('/messages')).length, { timeout: 60_000 }).toBeGreaterThan(2);
    server.losesAnswers = false;
    await page.locator('.dock .queue').waitFor({ state: 'detached', timeout: 30_000 });
    await page.locator('.md', { hasText: /^once/ }).waitFor();
    expect(messages('show').filter((text) => text === 'say once')).toHaveLength(1);
  });

  test('a_message_that_is_refused_says_why_and_can_be_discarded', async () => {
    await open(size);
    await item('Login accepts the password').click();
    await page.locator('.md table').waitFor();
    edge.sessions.delete('show');
    await page.getByLabel('Message').fill('anybody there?');
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    const failed = page.locator('.dock .queue li.failed', { hasText: 'anybody there?' });
    await failed.getByText('Not sent').waitFor();
    await failed.getByRole('button', { name: 'Discard' }).click();
    await failed.waitFor({ state: 'detached' });
  });

  test('a_session_opened_while_the_machine_is_away_comes_by_itself', async () => {
    await open(size);
    await list();
    await item('Login accepts the password').waitFor();
    server.away = true;
    server.cut();
    await item('Login accepts the password').click();
    await page.locator('.main .empty[role=alert]').waitFor();
    server.away = false;
    await page.locator('.md table').waitFor({ timeout: 30_000 });
  });

  test('the_list_pages_on_to_the_first_session_and_search_finds_what_was_never_loaded', async () => {
    for (let n = 1; n <= 260; n++) {
      const at = new Date(Date.now() - (100 + n) * 3_600_000).toISOString();
      edge.add({ id: `bulk${n}`, title: `Bulk work ${n} of many`, first_message: `Bulk ${n}`, project_path: '/home/me/bulk', status: 'parked', created_at: at, updated_at: at });
    }
    await open(size);
    await list();
    await page.getByRole('button', { name: 'Search' }).click();
    await page.getByLabel('Search sessions').last().fill('work 259 many');
    await item('Bulk work 259 of many').waitFor();
    await expect.poll(() => page.locator('.item').count()).toBe(1);
    await page.getByLabel('Search sessions').last().press('Escape');
    const rows = page.locator('.inbox-list');
    await expect.poll(async () => {
      await rows.evaluate((box) => { box.scrollTop = box.scrollHeight; });
      return item('Bulk work 260 of many').count();
    }, { timeout: 60_000 }).toBe(1);
    // Days head the list, and nothing comes twice.
    const titles = await page.locator('.item h3').allTextContents();
    expect(titles.filter((title) => title.startsWith('Bulk')).length).toBe(260);
    expect(new Set(titles).size).toBe(titles.length);
    await page.getByRole('heading', { name: 'Today' }).waitFor();
    expect(await page.locator('.group h2').allTextContents()).not.toContain('Earlier');
  });

  test('filters_narrow_the_list_by_agent_and_by_what_lives', async () => {
    await open(size);
    await list();
    await page.getByRole('button', { name: 'Search' }).click();
    await page.getByRole('button', { name: 'Codex' }).click();
    await item('Explain this regular expression').waitFor();
    await page.locator('.item', { hasText: 'Clean up the build scripts' }).waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Live' }).click();
    await page.locator('.item', { hasText: 'Explain this' }).waitFor({ state: 'detached' });
    await expect.poll(() => page.locator('.item').count()).toBe(1);
  });

  test('a_session_that_is_parked_is_not_new', async () => {
    await open(size);
    await item('Login accepts the password').click();
    await page.locator('.md table').waitFor();
    await page.evaluate(() => { location.hash = '#/'; });
    await page.locator('.group.recent', { hasText: 'Login accepts' }).waitFor();
    const session = edge.sessions.get('show');
    session?.push({ type: 'status', status: 'parked' });
    session?.changed({ status: 'parked' });
    // What is told later is on the page, so this is too.
    edge.sessions.get('runs')?.changed({ title: 'Told after it' });
    await item('Told after it').waitFor();
    await expect.poll(() => page.locator('.group.unread', { hasText: 'Login accepts' }).count()).toBe(0);
    session?.changed({ turns: 2 });
    session?.push({ type: 'text', id: 'n', text: 'news', delta: false });
    session?.changed();
    await page.locator('.group.unread', { hasText: 'Login accepts' }).waitFor();
  });

  test('back_closes_the_sheet_first_and_each_place_is_one_step', async () => {
    await open(size);
    await item('Login accepts the password').click();
    await page.locator('.md table').waitFor();
    const place = page.url();
    await page.getByRole('button', { name: 'More' }).click();
    await page.getByRole('button', { name: 'Details' }).click();
    await page.locator('dialog .details').waitFor();
    await page.goBack();
    await page.locator('dialog').waitFor({ state: 'detached' });
    expect(page.url()).toBe(place);
    // A sheet that was closed by its cross leaves no step behind.
    await page.getByRole('button', { name: 'More' }).click();
    await page.locator('dialog').getByRole('button', { name: 'Close' }).click();
    await page.locator('dialog').waitFor({ state: 'detached' });
    await page.goBack();
    await page.waitForURL(/#\/$|\/$/);
    // A link out of a sheet takes the sheet's step.
    await page.goForward();
    await page.locator('.md table').waitFor();
    await page.getByRole('button', { name: 'More' }).click();
    await page.locator('dialog').getByText('Files').click();
    await page.waitForURL(/#\/files/);
    await page.locator('.rows.cards').waitFor();
    if (size === 'phone') await page.getByRole('button', { name: 'Back' }).click();
    else await page.goBack();
    await page.locator('.md table').waitFor();
    expect(page.url()).toBe(place);
    await page.goBack();
    await page.waitForURL(/#\/$|\/$/);
    // The places below are one step each, however often they are gone to.
    const nav = page.locator('.nav');
    for (const name of ['Settings', 'Sessions', 'Settings', 'Sessions']) await nav.getByRole('link', { name: new RegExp(name) }).click();
    await page.waitForURL(/#\/$|\/$/);
    expect(await page.evaluate(() => (history.state as { at: number }).at)).toBe(0);
  });

  test('a_session_outside_the_served_directories_offers_no_files', async () => {
    await open(size);
    await item('Move the shop').click();
    await page.getByRole('button', { name: 'More' }).click();
    await page.locator('dialog').getByText('Details').waitFor();
    await expect.poll(() => page.locator('dialog').getByText('Files').count()).toBe(0);
    await page.locator('dialog').getByRole('button', { name: 'Close' }).click();
  });

  test('a_link_to_a_machine_that_is_not_kept_shows_no_other_in_its_place', async () => {
    await open(size);
    await list();
    await page.evaluate(() => { location.hash = '#/s/nobodyknows/show'; });
    await page.getByRole('heading', { name: 'This machine is not kept on this device' }).first().waitFor();
    await expect.poll(() => page.locator('.md').count()).toBe(0);
  });

  test('output_reads_as_in_a_terminal_tables_scroll_and_a_turned_line_ends_with_itself', async () => {
    await open(size);
    await begin('shapes');
    await page.locator('.turn-end').waitFor();
    await page.locator('.card-head', { hasText: 'npm install' }).click();
    expect((await page.locator('.output').innerText()).trim()).toBe('100%\nok');
    const table = page.locator('.md .table');
    expect(await table.evaluate((box) => box.scrollWidth > box.clientWidth + 200)).toBe(true);
    // One line a row: cells keep their words together.
    expect(await table.locator('td').first().evaluate((cell) => cell.getBoundingClientRect().height)).toBeLessThan(60);
    const text = (await page.locator('.md').last().evaluate((box) => box.textContent)) ?? '';
    expect(text).toMatch(/\u202e around\u202c/);
    expect(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth)).toBe(true);
  });

  test('a_directory_is_a_tap_and_the_tab_is_called_as_the_session', async () => {
    await open(size, 'en', '#/new');
    const places = page.locator('.places');
    await places.getByRole('button', { name: 'garden' }).click();
    await page.locator('.settings-rows .value', { hasText: 'garden' }).waitFor();
    await places.getByRole('button', { name: 'Home directory' }).click();
    await page.locator('.settings-rows .value', { hasText: /^~$/ }).waitFor();
    await page.locator('.settings-rows button', { hasText: 'Directory' }).click();
    await page.locator('dialog').getByText('Git repositories').waitFor();
    await page.locator('dialog').getByText('~/code/dotfiles').click();
    await page.getByLabel('Task').fill('say hello there');
    await page.getByRole('button', { name: 'Start' }).click();
    await page.locator('.bubble').waitFor();
    await expect.poll(() => page.title()).toMatch(/say hello there · arp$/);
    expect([...edge.sessions.values()].pop()?.object.project_path).toBe('/home/me/code/dotfiles');
  });

  test('enter_does_the_same_everywhere', async () => {
    await open(size, 'en', '#/new');
    await page.getByLabel('Task').fill('say one');
    await page.getByLabel('Task').press('Shift+Enter');
    await page.getByLabel('Task').pressSequentially('two');
    if (size === 'phone') {
      // With the keys of a screen Enter begins a line; the button sends.
      await page.getByLabel('Task').press('Enter');
      expect(await page.getByLabel('Task').inputValue()).toBe('say one\ntwo\n');
      await page.getByRole('button', { name: 'Start' }).click();
    } else {
      await page.getByText('Enter sends, Shift+Enter begins a line').first().waitFor();
      await page.getByLabel('Task').press('Enter');
    }
    await page.locator('.bubble', { hasText: 'one' }).waitFor();
    await page.locator('.turn-end').waitFor();
    await page.getByLabel('Message').fill('say three');
    if (size === 'phone') await page.getByRole('button', { name: 'Send', exact: true }).click();
    else await page.getByLabel('Message').press('Enter');
    await page.locator('.bubble', { hasText: 'three' }).waitFor();
  });

  test('a_key_that_ends_a_composition_opens_nothing_and_forgets_nothing', async () => {
    await open(size);
    await list();
    /** As an input method gives them: while letters are put together, and as Safari does, right after. */
    const composing = async (selector: string, keys: string[]): Promise<void> => {
      for (const how of [{ isComposing: true, keyCode: 229 }, { isComposing: false, keyCode: 229 }]) {
        for (const key of keys) await page.locator(selector).evaluate((field, [name, init]) => field.dispatchEvent(new KeyboardEvent('keydown', { key: name as string, bubbles: true, cancelable: true, ...(init as object) })), [key, how] as const);
      }
    };
    const before = page.url();
    await page.getByRole('button', { name: 'Search' }).click();
    await page.locator('.searchbar input').fill('Login');
    await composing('.searchbar input', ['Escape', 'Enter']);
    expect(await page.locator('.searchbar input').inputValue()).toBe('Login');
    await page.locator('.searchbar input').press('Escape');
    await page.keyboard.press('Control+k');
    await page.locator('.palette input').fill('支付');
    await composing('.palette input', ['Enter', 'ArrowDown']);
    await frames(page);
    expect(await page.locator('.palette').count()).toBe(1);
    expect(page.url()).toBe(before);
  });

  test('a_machine_is_called_by_its_client_id_and_can_be_renamed', async () => {
    edge.info.client_id = 'build-box';
    await open(size);
    await page.getByRole('heading', { name: 'build-box', level: 1 }).waitFor();
    await page.evaluate(() => { location.hash = '#/settings'; });
    await page.getByRole('button', { name: 'Rename: build-box' }).click();
    await page.getByLabel('Name of the machine').fill('Kitchen');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.locator('.rowlike', { hasText: 'Kitchen' }).waitFor();
    await page.reload();
    await page.locator('.rowlike', { hasText: 'Kitchen' }).waitFor();
  });

  test('chinese_screens_say_nothing_in_english', async () => {
    server.edges.set('demo', liveMachine('studio', 'zh'));
    await open(size, 'zh');
    await list();
    const english = (): Promise<string[]> => page.evaluate(() => {
      const names = /^(arpc?|Claude Code|Codex|Gemini CLI|English|Git|Ctrl K|[a-z/~ ]{1,3}|opus|sonnet|haiku|gpt.*|studio|CLI|App)$/i;
      const found: string[] = [];
      for (const element of document.querySelectorAll('button, h1, h2, h3, label, legend, dt, [aria-label], [placeholder], .soft, .tag, .value')) {
        if (!(element as HTMLElement).checkVisibility()) continue;
        if (element.closest('.item, .value[title], code, pre, .md, .card-title, .mono, .changed, .places, time') || element.matches('.clip .clip')) continue;
        const texts = [element.getAttribute('aria-label'), element.getAttribute('placeholder'), [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.textContent).join('')];
        for (const text of texts) {
          const bare = (text ?? '').trim();
          if (/[A-Za-z]{3,}/.test(bare) && !/[\u4e00-\u9fff]/.test(bare) && !names.test(bare) && !/[/@\d]/.test(bare)) found.push(bare);
        }
      }
      return [...new Set(found)];
    });
    expect(await english()).toEqual([]);
    await page.getByText('密码填 true 也能登录').first().click();
    await page.locator('.md table').waitFor();
    expect(await english()).toEqual([]);
    await page.getByRole('button', { name: '更多' }).click();
    await page.locator('dialog').getByText('另开分支').waitFor();
    expect(await english()).toEqual([]);
    await page.keyboard.press('Escape');
    for (const [hash, there] of [['#/settings', '.main .rowlike'], ['#/new', '.places .pick']] as const) {
      await page.evaluate((to) => { location.hash = to; }, hash);
      await page.locator(there).first().waitFor();
      expect(await english()).toEqual([]);
    }
  });
});

test.each([['en', 'This machine is away', 'No machine has this token'], ['zh', '这台机器不在线', '没有机器使用这个访问令牌']] as const)('the_relays_own_pages_speak_the_language_and_go_on_by_themselves (%s)', async (lang, away, nobody) => {
  context = await device(browser, { size: 'phone', lang });
  page = await context.newPage();
  await page.goto(`${base}/?token=nobody`);
  await page.goto(`${base}/?arp_token=nobody`);
  await page.getByRole('heading', { name: nobody }).waitFor();
  expect(await seriousFaults(page)).toEqual([]);
  server.away = true;
  await page.goto(`${base}/?token=demo`);
  await page.getByRole('heading', { name: away }).waitFor();
  await page.getByRole('status').waitFor();
  expect(await seriousFaults(page)).toEqual([]);
  if (process.env['SHOTS']) await page.screenshot({ path: join(process.env['SHOTS'], `relay-503-${lang}.png`) });
  server.away = false;
  await page.locator('.shell').waitFor();
  await page.locator('.item').first().waitFor();
});

test('on_a_wide_screen_a_panel_tells_plan_and_changed_files_and_leads_to_the_change', async () => {
  await open('desk');
  await item('Login accepts the password').click();
  const panel = page.getByRole('complementary', { name: 'About this session' });
  await panel.getByText('4 of 4 done').waitFor();
  await panel.locator('.changed li', { hasText: 'login.ts' }).getByText('+4').waitFor();
  await panel.locator('.changed button').first().click();
  await page.locator('.card.open .diff').waitFor();
});

test('the_installed_app_opens_its_machine', async () => {
  await open('phone');
  await list();
  // The browser without windows keeps the first manifest that it was asked for.
  await page.locator('link[rel=manifest][href^="data:"]').waitFor({ state: 'attached' });
  const cdp = await context.newCDPSession(page);
  await expect.poll(async () => {
    const { data } = await cdp.send('Page.getAppManifest') as { data?: string };
    return data ? String((JSON.parse(data) as { start_url: string }).start_url) : '';
  }).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/\?arp_token=demo$/);
  const { errors } = await cdp.send('Page.getAppManifest') as { errors: { message: string }[] };
  expect(errors).toEqual([]);
});

test('a_long_block_of_code_that_streams_makes_and_lays_out_no_more_than_its_tail', async () => {
  const line = (n: number): string => `export const value${n} = compute(${n}, "text ${n}"); // line ${n}\n`;
  const lines = (from: number, to: number): string => Array.from({ length: to - from + 1 }, (_, index) => line(from + index)).join('');
  /** What an update may touch: in the page the last line, in layout the few that are laid out with it. */
  const tail = { text: 2 * line(1600).length, nodes: 16, objects: 8 * 24 + 40, elements: 2 * 8 + 20 };
  const { say, end } = drive(edge);
  await open('phone');
  await list();
  await begin('write it');

  let code = lines(1, 800);
  const opening = 'Here it is:\n\n```ts\n';
  const shown = (): Promise<unknown> => page.waitForFunction((text) => document.querySelector('.md pre')?.textContent === text, code, { polling: 'raf' });
  /** Says so many lines more, each in two pieces as models do, and looks at each piece before the next is said. */
  const stream = async (count: number, each: () => Promise<void>): Promise<void> => {
    for (let n = code.split('\n').length, to = n + count; n < to; n++) {
      for (const piece of [line(n).slice(0, 23), line(n).slice(23)]) {
        code += piece;
        say(piece);
        await shown();
        await each();
      }
    }
  };
  say(opening + code);
  await shown();

  // All that is in the page of finished lines is the same to the end, node by node.
  await page.evaluate(() => {
    const md = document.querySelector('.md') as Element;
    const nodes = (): Node[] => [...md.querySelectorAll('.lines')].slice(0, 16).flatMap((chunk) => {
      const walk = document.createTreeWalker(chunk);
      const found: Node[] = [chunk];
      while (walk.nextNode()) found.push(walk.currentNode);
      return found;
    });
    const first = nodes();
    const length = (some: Iterable<Node>): number => [...some].reduce((sum, node) => sum + (node.textContent?.length ?? 0), 0);
    const updates: { arrived: number; added: number; removed: number; from: string[] }[] = [];
    let before = md.textContent?.length ?? 0;
    new MutationObserver((records) => {
      const made = new Set<Node>(records.flatMap(({ addedNodes }) => [...addedNodes]));
      // What went into a node that is new itself counts with that.
      const own = records.filter(({ target }) => !made.has(target));
      const now = md.textContent?.length ?? 0;
      updates.push({
        arrived: now - before,
        added: length(own.flatMap(({ addedNodes }) => [...addedNodes])),
        removed: length(own.flatMap(({ removedNodes }) => [...removedNodes])),
        from: own.flatMap(({ removedNodes }) => [...removedNodes].map((node) => (node as Element).className ?? node.nodeName)),
      });
      before = now;
    }).observe(md, { subtree: true, childList: true, characterData: true });
    Object.assign(globalThis, { kept: () => ({ count: first.length, same: nodes().every((node, index) => node === first[index] && node.isConnected) }), updates });
  });
  const kept = (): Promise<{ count: number; same: boolean }> => page.evaluate(() => (globalThis as unknown as { kept(): { count: number; same: boolean } }).kept());

  const cdp = await context.newCDPSession(page);
  await cdp.send('Performance.enable');
  await cdp.send('Profiler.enable');
  const metrics = async (): Promise<Record<string, number>> => Object.fromEntries((await cdp.send('Performance.getMetrics')).metrics.map(({ name, value }) => [name, value]));
  /** Waits until what was said before is laid out: what comes into sight by it is laid out a frame later than the text. */
  const still = async (): Promise<void> => {
    const layouts = async (): Promise<number> => (await metrics())['LayoutCount'] ?? 0;
    let before: number;
    do {
      before = await layouts();
      for (let pair = 0; pair < 3; pair++) await frames(page);
    } while (await layouts() !== before);
  };
  interface Traced { name: string; args: { beginData?: { dirtyObjects: number; totalObjects: number }; elementCount?: number } }
  /** Streams a dozen lines, and tells what the browser had to do for them. */
  const measured = async (): Promise<{ calls: number; layouts: number; styles: number; dirty: number[]; total: number; restyled: number[] }> => {
    await still();
    const traced: Traced[] = [];
    const collect = ({ value }: { value: unknown[] }): void => void traced.push(...(value as Traced[]));
    cdp.on('Tracing.dataCollected', collect);
    await cdp.send('Profiler.startPreciseCoverage', { callCount: true, detailed: false });
    await cdp.send('Tracing.start', { transferMode: 'ReportEvents', traceConfig: { includedCategories: ['devtools.timeline'] } });
    const before = await metrics();
    const calls: number[] = [];
    await cdp.send('Profiler.takePreciseCoverage');
    await stream(12, async () => {
      const { result } = await cdp.send('Profiler.takePreciseCoverage');
      calls.push(result.filter(({ url }) => url.includes('/assets/')).flatMap(({ functions }) => functions).reduce((sum, { ranges }) => sum + (ranges[0]?.count ?? 0), 0));
    });
    const after = await metrics();
    await cdp.send('Profiler.stopPreciseCoverage');
    const complete = new Promise((resolve) => cdp.once('Tracing.tracingComplete', resolve));
    await cdp.send('Tracing.end');
    await complete;
    cdp.off('Tracing.dataCollected', collect);
    const layouts = traced.flatMap(({ name, args }) => (name === 'Layout' && args.beginData ? [args.beginData] : []));
    const of = (name: string): number => (after[name] ?? 0) - (before[name] ?? 0);
    return {
      // A clock that ticks meanwhile only adds; the middle is what an update takes.
      calls: calls.sort((a, b) => a - b)[calls.length >> 1] ?? 0,
      layouts: of('LayoutCount') / calls.length,
      styles: of('RecalcStyleCount') / calls.length,
      dirty: layouts.map(({ dirtyObjects }) => dirtyObjects),
      total: Math.max(...layouts.map(({ totalObjects }) => totalObjects)),
      restyled: traced.flatMap(({ name, args }) => (name === 'UpdateLayoutTree' && args.elementCount !== undefined ? [args.elementCount] : [])),
    };
  };

  const early = await measured();
  const more = lines(813, 1588);
  code += more;
  say(more);
  await shown();
  const late = await measured();
  expect(code).toBe(lines(1, 1600));
  for (const { layouts, styles, dirty, restyled } of [early, late]) {
    expect(dirty.length).toBeGreaterThan(0);
    expect(Math.max(...dirty)).toBeLessThan(tail.objects);
    expect(Math.max(...restyled)).toBeLessThan(tail.elements);
    expect(layouts).toBeLessThan(8);
    expect(styles).toBeLessThan(24);
  }
  // Twice the lines are no more work: neither for the browser (what is out of sight is not in its layout) nor for us.
  expect(late.total).toBeLessThan(early.total * 1.5);
  expect(late.calls).toBeLessThan(early.calls * 1.2);

  // The end, and the whole text once more as agents tell it: no line is made anew for either.
  say('```\n\nThat was the code.');
  await page.locator('.md p', { hasText: 'That was the code.' }).waitFor();
  say(`${opening}${code}\`\`\`\n\nThat was the code.`, false);
  end();
  await page.locator('.turn-end').waitFor();
  expect(await page.locator('.md pre').evaluate((box) => box.textContent)).toBe(code.trimEnd());
  const { count, same } = await kept();
  expect(count).toBeGreaterThan(10_000);
  expect(same).toBe(true);
  const updates = await page.evaluate(() => (globalThis as unknown as { updates: { arrived: number; added: number; removed: number; from: string[] }[] }).updates);
  expect(updates.length).toBeGreaterThan(48);
  for (const { arrived, added, removed, from } of updates) {
    expect(removed).toBeLessThanOrEqual(tail.text);
    expect(added).toBeLessThanOrEqual(Math.max(0, arrived) + tail.text);
    // Only what the line at the end is made of is ever replaced.
    expect(from.length).toBeLessThanOrEqual(tail.nodes);
  }
});
