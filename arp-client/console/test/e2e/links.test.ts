//! Tokens and ways: prefixes, two tabs, reloads, sockets that do not get through, what leaves the browser.

import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { liveMachine } from '../../dev/mock/data';
import type { MockEdge } from '../../dev/mock/edge';
import { MockServer } from '../../dev/mock/server';
import { drive, numbers } from './driven';
import { clocked, device, faults, halt, openBrowser, seriousFaults } from './browser';

let browser: Browser;
let server: MockServer;
let base: string;
let context: BrowserContext;
let page: Page;

beforeAll(async () => {
  browser = await openBrowser();
});
afterAll(() => browser.close());
beforeEach(async () => {
  server = new MockServer();
  server.edges.set('demo', liveMachine('studio'));
  server.edges.set('other', liveMachine('laptop'));
  base = await server.listen();
  context = await device(browser, { size: 'desk' });
  page = await context.newPage();
});
afterEach(async () => {
  expect(faults.get(page)).toEqual([]);
  await context.close();
  await server.close();
});

const named = (on: Page, name: string): Promise<void> => on.getByRole('heading', { name, level: 1 }).waitFor();

test('it_works_below_a_prefix', async () => {
  await page.goto(`${base}/t/demo/`);
  await named(page, 'studio');
  await page.getByText('Login accepts the password').first().click();
  await page.locator('.md table').waitFor();
  await page.reload();
  await page.locator('.md table').waitFor();
  expect(page.url()).toContain(`${base}/t/demo/#/s/`);
  const bare = server.seen.filter(({ url }) => !url.startsWith('/t/demo/') && !/^\/favicon/.test(url));
  expect(bare).toEqual([]);
});

test('two_tabs_with_two_tokens_do_not_mix', async () => {
  // As a QR code of arpc has it: with its key behind the #.
  await page.goto(`${base}/?token=demo#:~:e2e=SHA256:a/b+c`);
  await named(page, 'studio');
  expect(server.seen.filter(({ url }) => url.includes('e2e'))).toEqual([]);
  const second = await context.newPage();
  await second.goto(`${base}/?token=other#/settings`);
  const own = (on: Page): Promise<string> => on.locator('.rowlike', { hasText: 'This one' }).locator('b').innerText();
  await second.getByText('This one').waitFor();
  await expect.poll(() => own(second)).toBe('laptop');
  await page.goto(`${base}/#/settings`);
  await page.reload();
  await expect.poll(() => own(page)).toBe('studio');
  await second.reload();
  await expect.poll(() => own(second)).toBe('laptop');
  // Both know both by now, each under its own token.
  await named(page, 'All machines');
  await named(second, 'All machines');
});

test('a_tab_whose_cookie_was_taken_shows_its_token_again_so_that_a_reload_comes_back', async () => {
  await page.goto(`${base}/?token=demo`);
  await named(page, 'studio');
  expect(page.url()).not.toContain('token');
  await context.addCookies([{ name: 'arp_token', value: 'other', url: base }]);
  await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
  await page.waitForURL(/token=demo/);
  await context.addCookies([{ name: 'arp_token', value: 'demo', url: base }]);
  await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
  await page.waitForURL((url) => !url.search);
});

test('without_sockets_events_come_by_sse_and_a_cut_loses_nothing', async () => {
  server.noSockets = true;
  const { say, end } = drive(server.edges.get('demo') as MockEdge);
  await page.goto(`${base}/?token=demo#/new`);
  await page.getByLabel('Task').fill('count');
  await page.getByRole('button', { name: 'Start' }).click();
  await page.locator('.bubble').waitFor();
  for (let n = 1; n < 600; n += 150) {
    say(numbers(n, n + 74));
    await page.locator('.md', { hasText: `${n + 74}` }).waitFor();
    server.cut();
    // Said while nobody is there to hear it.
    say(numbers(n + 75, n + 149));
    await page.locator('.md', { hasText: `${n + 149}` }).waitFor();
  }
  end();
  await page.locator('.turn-end').waitFor();
  const text = await page.locator('.md').last().innerText();
  expect(text.trim().split(/\s+/).map(Number)).toEqual(Array.from({ length: 600 }, (_, index) => index + 1));
  expect(server.seen.some(({ url }) => url.includes('format=events&stream=true'))).toBe(true);
});

test('the_token_goes_to_this_origin_only_and_in_no_referer_after_the_first_load', async () => {
  const away: string[] = [];
  page.on('request', (request) => {
    if (!request.url().startsWith(base)) away.push(request.url());
  });
  await page.goto(`${base}/?token=demo`);
  await named(page, 'studio');
  const mark = server.seen.length;
  await page.getByText('Login accepts the password').first().click();
  await page.locator('.md table').waitFor();
  expect(away).toEqual([]);
  for (const { referer, token } of server.seen.slice(mark)) {
    expect(referer).not.toContain('demo');
    expect(token).toBe('demo');
  }
});

test('several_machines_are_one_list', async () => {
  await page.goto(`${base}/?token=demo#/settings`);
  await page.getByRole('button', { name: 'Add a machine' }).click();
  await page.getByLabel('Address with the token').fill('nonsense');
  await page.getByRole('button', { name: 'Add', exact: true }).click();
  expect(await page.locator('.panel [role=alert], .panel input:invalid').count()).toBeGreaterThan(0);
  await page.getByLabel('Address with the token').fill(`${base}/?token=other`);
  await page.getByRole('button', { name: 'Add', exact: true }).click();
  await named(page, 'All machines');
  await page.getByText('4 need you').waitFor();
  await page.getByText('laptop · shop').first().waitFor();
  await page.reload();
  await page.getByText('4 need you').waitFor();
  // Tapped twice in haste it only asks.
  await page.getByRole('button', { name: 'Remove' }).dblclick();
  await page.getByRole('heading', { name: 'Remove laptop from this device?' }).waitFor();
  await page.locator('dialog').getByRole('button', { name: 'Remove' }).click();
  await named(page, 'studio');
});

test('a_machine_with_a_key_of_its_own_asks_for_it', async () => {
  const edge = liveMachine('vault');
  edge.edgeKey = 'sesame';
  server.edges.set('vault', edge);
  await page.goto(`${base}/?token=vault`);
  await page.getByLabel('Key of the machine').fill('wrong');
  await page.getByRole('button', { name: 'Unlock' }).click();
  await page.getByText('That is not the key.').waitFor();
  await page.getByLabel('Key of the machine').fill('sesame');
  await page.getByRole('button', { name: 'Unlock' }).click();
  await named(page, 'vault');
  await page.getByText('2 need you').waitFor();
});

test('the_keyboard_moves_allows_denies_and_finds', async () => {
  await clocked(page);
  await page.goto(`${base}/?token=demo`);
  await page.locator('.item').first().waitFor();
  await page.keyboard.press('j');
  await page.locator('.approval').waitFor();
  const first = await page.locator('.head h1').innerText();
  await page.keyboard.press('j');
  await page.waitForFunction((old) => document.querySelector('.head h1')?.textContent !== old, first);
  await page.keyboard.press('k');
  await page.waitForFunction((old) => document.querySelector('.head h1')?.textContent === old, first);
  await page.locator('.approval').waitFor();
  await page.locator('.ask:not(.inert)').waitFor();
  // No letter decides.
  const decided: string[] = [];
  page.on('request', (request) => {
    if (request.method() === 'POST' && request.url().includes('/approvals/')) decided.push(request.url());
  });
  await page.keyboard.press('a');
  await page.keyboard.press('d');
  await page.locator('#deny-reason:focus').waitFor();
  await page.keyboard.press('Escape');
  await page.locator('#deny-reason').waitFor({ state: 'detached' });
  expect(decided).toEqual([]);
  await page.keyboard.press('Control+Enter');
  await page.locator('.approval').waitFor({ state: 'detached' });
  await page.keyboard.press('Control+k');
  await page.keyboard.type('build scripts');
  await page.keyboard.press('Enter');
  await page.locator('.ask:not(.inert)').waitFor();
  // Whoever typed a second ago may be typing still. From here on time goes as the test says.
  await halt(page);
  await page.locator('#reply').focus();
  await page.keyboard.type('x');
  await page.keyboard.press('Backspace');
  await page.evaluate(() => (document.activeElement as HTMLElement).blur());
  await page.keyboard.press('d');
  await expect.poll(() => page.locator('#deny-reason').count()).toBe(0);
  await page.clock.fastForward(1_100);
  await page.keyboard.press('d');
  await page.locator('#deny-reason:focus').waitFor();
  await page.keyboard.type('no');
  await page.keyboard.press('Enter');
  await page.locator('.approval').waitFor({ state: 'detached' });
  await expect.poll(() => page.title()).toMatch(/^[^(]*arp$/);
  await page.keyboard.press('Escape');
  await page.locator('.list').focus();
  await page.keyboard.press('/');
  await page.keyboard.type('tables');
  await page.locator('.item').nth(1).waitFor({ state: 'detached' });
  await expect.poll(() => page.locator('.item').count()).toBe(1);
});

test('a_draft_and_what_was_read_survive_a_reload', async () => {
  await page.goto(`${base}/?token=demo`);
  await page.getByText('Login accepts the password').first().click();
  await page.getByLabel('Message').fill('Yes, open it');
  await page.reload();
  await page.locator('.md table').waitFor();
  expect(await page.getByLabel('Message').inputValue()).toBe('Yes, open it');
  server.edges.get('demo')?.sessions.get('zh')?.push({ type: 'text', id: 'n', text: 'news', delta: false });
  server.edges.get('demo')?.sessions.get('zh')?.changed({ status: 'idle', turns: 1 });
  await page.locator('.group.unread', { hasText: '给设置页' }).waitFor();
  await page.reload();
  await page.locator('.group.unread', { hasText: '给设置页' }).click();
  await page.locator('.group.recent', { hasText: '给设置页' }).waitFor();
});

test('a_hidden_page_calls_for_its_user', async () => {
  await context.grantPermissions(['notifications'], { origin: base });
  await page.addInitScript(() => {
    const made: string[] = [];
    Object.assign(globalThis, { made });
    class Notice { static permission = 'granted'; static requestPermission = async () => 'granted'; onclick = null; constructor(title: string, more: { body: string }) { made.push(`${title}: ${more.body}`); } close() {} }
    Object.assign(globalThis, { Notification: Notice });
  });
  await page.goto(`${base}/?token=demo#/settings`);
  await page.getByRole('switch').check({ force: true });
  await page.evaluate(() => Object.defineProperty(document, 'visibilityState', { get: () => 'hidden', configurable: true }));
  const edge = server.edges.get('demo');
  void edge?.sessions.get('show')?.ask({ tool_call_id: null, tool_name: 'Bash', kind: 'command', title: 'npm publish', reason: null, input: { command: 'npm publish' }, can_allow_session: false, can_edit: false });
  await page.waitForFunction(() => /^\(3\) .*arp$/.test(document.title));
  expect(await page.evaluate(() => (globalThis as unknown as { made: string[] }).made.join())).toMatch(/Approval needed: Login accepts.*\nnpm publish/);
});

test('the_service_worker_keeps_the_shell_and_never_the_api', async () => {
  await page.goto(`${base}/?token=demo`);
  await named(page, 'studio');
  await page.evaluate(async () => {
    await navigator.serviceWorker.ready;
    while (!(await caches.match(new URL('./', location.href).href))) await new Promise((resolve) => setTimeout(resolve, 50));
  });
  const kept = await page.evaluate(async () => {
    const cache = await caches.open((await caches.keys())[0] ?? '');
    return (await cache.keys()).map((request) => new URL(request.url).pathname);
  });
  expect(kept.some((path) => path.endsWith('.js')) && kept.includes('/')).toBe(true);
  expect(kept.some((path) => path.includes('/api'))).toBe(false);
  server.away = true;
  server.cut();
  await page.reload();
  await page.locator('.line.down').first().waitFor();
  server.away = false;
  await named(page, 'studio');
});

test('a_relay_that_takes_connections_and_says_nothing_is_told_of_and_nothing_spins_for_ever', async () => {
  await page.goto(`${base}/?token=demo`);
  await named(page, 'studio');
  server.mute = true;
  server.cut();
  await page.getByText('Login accepts the password').first().click();
  const line = page.locator('.inbox .line');
  await line.getByText('Reconnecting…').waitFor();
  await expect.poll(() => line.innerText(), { timeout: 60_000 }).toMatch(/Offline since \d\d:\d\d\..*relay does not answer/s);
  // What was asked for ends too, with a way to go on.
  const failed = page.locator('.main .empty[role=alert]');
  await failed.waitFor({ timeout: 60_000 });
  await expect.poll(() => page.locator('.loading').count()).toBe(0);
  server.mute = false;
  server.cut();
  await failed.getByRole('button').click();
  await page.locator('.md table').waitFor();
  await line.waitFor({ state: 'detached' });
});

test('without_motion_where_none_is_wanted', async () => {
  await page.emulateMedia({ reducedMotion: 'reduce' });
  await page.goto(`${base}/?token=demo`);
  await named(page, 'studio');
  await page.getByText('Clean up the build scripts').first().click();
  await page.locator('.approval').waitFor();
  await page.getByRole('button', { name: 'More' }).click();
  await page.locator('dialog').waitFor();
  expect(await page.evaluate(() => document.getAnimations().filter(({ playState }) => playState === 'running').length)).toBe(0);
});

test('the_keyboard_alone_reaches_everything_and_a_dialog_gives_the_focus_back', async () => {
  await page.goto(`${base}/?token=demo`);
  await named(page, 'studio');
  await page.locator('.item', { hasText: 'Login accepts the password' }).waitFor();
  await page.keyboard.press('Tab');
  expect(await page.evaluate(() => document.activeElement?.className)).toBe('skip');
  await page.keyboard.press('Enter');
  expect(await page.evaluate(() => document.activeElement?.id)).toBe('main');
  await page.locator('.item', { hasText: 'Login accepts the password' }).focus();
  await page.keyboard.press('Enter');
  await page.locator('.md table').waitFor();
  const more = page.getByRole('button', { name: 'More' });
  await more.focus();
  await page.keyboard.press('Enter');
  await page.locator('dialog[open]').waitFor();
  for (let n = 0; n < 12; n++) {
    await page.keyboard.press('Tab');
    // It stays inside the dialog, or goes to the browser's own bar.
    expect(await page.evaluate(() => document.activeElement === document.body || Boolean(document.activeElement?.closest('dialog')))).toBe(true);
  }
  await page.keyboard.press('Escape');
  await page.locator('dialog').waitFor({ state: 'detached' });
  expect(await more.evaluate((button) => button === document.activeElement)).toBe(true);
});

test('the_token_is_in_no_address_of_the_history_and_in_no_cache', async () => {
  await page.goto(`${base}/?token=demo`);
  await named(page, 'studio');
  await page.getByText('Login accepts the password').first().click();
  await page.locator('.md table').waitFor();
  await page.goBack();
  await page.goForward();
  const cdp = await context.newCDPSession(page);
  const { entries } = await cdp.send('Page.getNavigationHistory');
  expect(entries.map(({ url }) => url).filter((url) => url.includes('demo'))).toEqual([]);
  await page.evaluate(() => navigator.serviceWorker.ready);
  const kept = await page.evaluate(async () => {
    const caches_ = await Promise.all((await caches.keys()).map(async (name) => (await (await caches.open(name)).keys()).map(({ url }) => url)));
    return caches_.flat();
  });
  expect(kept.filter((url) => url.includes('demo') || url.includes('/api/'))).toEqual([]);
});

test('the_landing_page_takes_a_token_or_an_address', async () => {
  for (const text of ['demo', `${base}/?token=demo`, `${base}/t/demo/`]) {
    const visitor = await device(browser, { size: 'phone', lang: 'zh' });
    const landing = await visitor.newPage();
    await landing.goto(`${base}/#/settings`);
    await landing.getByRole('heading', { name: '哪台机器？' }).waitFor();
    expect(await seriousFaults(landing)).toEqual([]);
    await landing.getByLabel(/Token/).fill('not a token');
    await landing.getByRole('button', { name: '打开' }).click();
    await landing.getByText('这里面没有令牌。').waitFor();
    await landing.getByLabel(/Token/).fill(text);
    await landing.getByRole('button', { name: '打开' }).click();
    await landing.locator('.shell').waitFor();
    expect(faults.get(landing)).toEqual([]);
    await visitor.close();
  }
});

test('the_landing_page_never_sends_the_token_to_another_host', async () => {
  await page.goto(`${base}//evil.example/x`);
  await page.getByLabel(/Token/).fill('demo');
  await page.getByRole('button', { name: 'Open' }).click();
  await page.waitForURL(/token=demo/);
  expect(new URL(page.url()).origin).toBe(base);
});
