//! What the console promises of machines, messages, ways back, speed and first minutes, in a real browser against
//! pretended machines, on a phone (touch) and at a desk (keyboard).

import { join } from 'node:path';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { liveMachine } from '../../dev/mock/data';
import type { MockEdge } from '../../dev/mock/edge';
import { MockServer } from '../../dev/mock/server';
import { device, faults, openBrowser, seriousFaults, type Size } from './browser';

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
    expect(await page.getByText('laptop · shop').count()).toBe(0);
    // Nor does a start go anywhere else.
    const before = edge.sessions.size;
    const answer = await page.evaluate(async (at) => (await fetch(`${at}/api/sessions`, { method: 'POST', headers: { 'X-ARP-Token': 'other', 'Content-Type': 'application/json' }, body: '{"prompt":"x"}' })).status, base);
    expect(answer).toBe(404);
    expect(edge.sessions.size).toBe(before);
  });

  test('a_token_that_leads_to_another_machine_shows_and_starts_nothing_until_that_is_confirmed', async () => {
    await open(size);
    await list();
    const stranger = liveMachine('intruder');
    server.edges.set('demo', stranger);
    server.cut();
    await page.reload();
    const panel = page.locator('.stranger');
    await panel.getByRole('heading', { name: 'This is not studio' }).waitFor();
    await panel.getByText('intruder answers where studio was kept').waitFor();
    expect(await page.locator('.item').count()).toBe(0);
    const before = stranger.sessions.size;
    await page.evaluate(() => { location.hash = '#/new'; });
    if (await page.getByLabel('Task').isVisible()) {
      await page.getByLabel('Task').fill('rm everything');
      await page.getByRole('button', { name: 'Start' }).click();
      await page.waitForTimeout(300);
    }
    expect(stranger.sessions.size).toBe(before);
    await page.evaluate(() => { location.hash = '#/'; });
    await panel.getByRole('button', { name: 'Use intruder from now on' }).click();
    await page.getByRole('heading', { name: 'intruder', level: 1 }).waitFor();
    await list();
    await page.reload();
    await list();
    expect(await panel.count()).toBe(0);
  });

  test('a_machine_that_comes_back_after_another_answered_is_shown_again', async () => {
    await open(size);
    await list();
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
    const count = await page.locator('.item').count();
    const second = await context.newPage();
    await second.goto(`${base}/`);
    await second.locator('.item').first().waitFor();
    await expect.poll(() => second.locator('.item').count()).toBe(count);
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
    await page.waitForTimeout(1_500);
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
    expect(await page.locator('.item').count()).toBe(1);
    await page.getByLabel('Search sessions').last().press('Escape');
    const rows = page.locator('.inbox-list');
    for (let n = 0; n < 40 && !(await item('Bulk work 260 of many').count()); n++) {
      await rows.evaluate((box) => { box.scrollTop = box.scrollHeight; });
      await page.waitForTimeout(100);
    }
    await item('Bulk work 260 of many').waitFor();
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
    expect(await page.locator('.item').count()).toBe(1);
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
    await page.waitForTimeout(400);
    expect(await page.locator('.group.unread', { hasText: 'Login accepts' }).count()).toBe(0);
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
    expect(await page.locator('dialog').getByText('Files').count()).toBe(0);
    await page.locator('dialog').getByRole('button', { name: 'Close' }).click();
  });

  test('a_link_to_a_machine_that_is_not_kept_shows_no_other_in_its_place', async () => {
    await open(size);
    await list();
    await page.evaluate(() => { location.hash = '#/s/nobodyknows/show'; });
    await page.getByRole('heading', { name: 'This machine is not kept on this device' }).first().waitFor();
    expect(await page.locator('.md').count()).toBe(0);
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
    for (const hash of ['#/settings', '#/new']) {
      await page.evaluate((to) => { location.hash = to; }, hash);
      await page.waitForTimeout(300);
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
  const cdp = await context.newCDPSession(page);
  await expect.poll(async () => {
    const { data } = await cdp.send('Page.getAppManifest') as { data?: string };
    return data ? String((JSON.parse(data) as { start_url: string }).start_url) : '';
  }).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/\?arp_token=demo$/);
  const { errors } = await cdp.send('Page.getAppManifest') as { errors: { message: string }[] };
  expect(errors).toEqual([]);
});

test('a_long_block_of_code_streams_below_fifty_milliseconds_a_frame_on_a_slow_phone', async () => {
  await open('phone');
  await list();
  await page.getByRole('link', { name: 'What should be done?' }).click();
  await page.getByLabel('Task').fill('code 1600');
  await page.getByRole('button', { name: 'Start' }).click();
  await page.waitForFunction(() => (document.querySelector('.md pre')?.textContent?.length ?? 0) > 50_000, undefined, { timeout: 60_000 });
  const cdp = await context.newCDPSession(page);
  // The processor's time of the page's own thread: how busy the machine is otherwise says nothing of us.
  await cdp.send('Performance.enable', { timeDomain: 'threadTicks' });
  const read = async (): Promise<Record<string, number>> => Object.fromEntries(((await cdp.send('Performance.getMetrics')) as { metrics: { name: string; value: number }[] }).metrics.map(({ name, value }) => [name, value]));
  const shown = (): Promise<number> => page.evaluate(() => document.querySelector('.md pre')?.textContent?.length ?? 0);
  const frames = (): Promise<number> => page.evaluate(() => new Promise((resolve) => {
    let count = 0;
    const end = performance.now() + 1_000;
    const step = (now: number): void => {
      count++;
      if (now < end) requestAnimationFrame(step);
      else resolve(count);
    };
    requestAnimationFrame(step);
  }));
  const rounds: number[] = [];
  const begun = await shown();
  for (let n = 0; n < 3; n++) {
    const before = await read();
    const drawn = await frames();
    rounds.push((((await read())['TaskDuration'] ?? 0) - (before['TaskDuration'] ?? 0)) * 1000 / drawn);
  }
  expect(await shown()).toBeGreaterThan(begun);
  // Others that work at the same time only add.
  const spent = Math.min(...rounds);
  console.log(`${rounds.map((one) => one.toFixed(1)).join(', ')} ms a frame; ${(spent * 4).toFixed(1)} at a quarter of the speed`);
  expect(spent * 4).toBeLessThan(50);
  await page.locator('.turn-end').waitFor({ timeout: 60_000 });
  expect(await page.locator('.md pre').evaluate((code) => code.textContent?.split('\n').length)).toBe(1600);
});
