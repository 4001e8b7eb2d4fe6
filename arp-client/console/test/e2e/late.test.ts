//! Answers that come late: they call nobody back, close nothing that was opened since, and undo nothing that was
//! written since. In a real browser against a pretended machine.

import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { liveMachine } from '../../dev/mock/data';
import type { MockEdge } from '../../dev/mock/edge';
import { busyGateway } from '../../dev/mock/gateway';
import { MockServer } from '../../dev/mock/server';
import { idOfEdge } from '../../src/net/machine';
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

const fresh = async (size: Size): Promise<void> => {
  context = await device(browser, { size, held: true });
  page = await context.newPage();
};
const goto = async (on: Page, path: string): Promise<void> => {
  await on.goto(`${base}${path}`);
  await on.locator('.shell').waitFor();
};
const open = async (size: Size, hash = ''): Promise<void> => {
  await fresh(size);
  await goto(page, `/?token=demo${hash}`);
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

/** Opens the page where a session begins, with such requests held back from the first. */
const begin = async (size: Size, method: string, where: RegExp): Promise<Awaited<ReturnType<typeof hold>>> => {
  await fresh(size);
  const held = await hold(method, where);
  await goto(page, '/?token=demo#/new');
  return held;
};

describe.each(['phone', 'desk'] as const)('%s', (size) => {
  describe('before_it_is_known_who_answers', () => {
    /** Until this is called, a machine does not say who it is; `of`: the one that has this token, else all. */
    let tell: () => void;
    const quiet = async (of?: string): Promise<void> => {
      const told = new Promise<void>((resolve) => { tell = resolve; });
      await context.route('**/api/info', async (asked) => {
        if (!of || asked.request().headers()['x-arp-token'] === of) await told;
        await asked.continue().catch(() => undefined);
      });
    };
    /** Adds a second machine on the page of settings, and waits until it is listed by this name. */
    const add = async (name: string): Promise<void> => {
      await page.getByRole('button', { name: 'Add a machine' }).click();
      await page.getByLabel('Address with the token').fill(`${base}/?token=other`);
      await page.getByRole('button', { name: 'Add', exact: true }).click();
      await page.locator('.rowlike').getByText(name, { exact: true }).first().waitFor();
    };
    /** Has the machine said who it is? */
    const known = (on: Page = page): Promise<void> => on.locator('.inbox h1', { hasText: 'studio' }).waitFor({ state: 'attached' });
    test('what_is_open_stays_open_when_it_is', async () => {
      await fresh(size);
      await quiet();
      await goto(page, '/?token=demo');
      await page.locator('.item', { hasText: 'Login accepts the password' }).first().click();
      await page.locator('.md table').waitFor();
      await page.getByRole('button', { name: 'More' }).click();
      const menu = await page.locator('dialog').elementHandle();
      const line = await page.locator('.item', { hasText: 'Move the shop' }).first().elementHandle();
      tell();
      await known();
      await page.locator('dialog').getByText('Files').waitFor();
      expect(await menu?.evaluate((box) => box.isConnected)).toBe(true);
      expect(await line?.evaluate((box) => box.isConnected)).toBe(true);
    });

    test('a_machine_that_was_chosen_stays_chosen_when_it_is', async () => {
      await fresh(size);
      const laptop = liveMachine('laptop');
      server.edges.set('other', laptop);
      await quiet('other');
      await goto(page, '/?token=demo');
      await page.locator('.item').first().waitFor({ state: 'attached' });
      await page.evaluate(() => { location.hash = '#/settings'; });
      await add('127.0.0.1');
      await page.evaluate(() => { location.hash = '#/new'; });
      const chosen = page.locator('.settings-rows button', { hasText: 'Machine' });
      await chosen.click();
      await page.locator('dialog').getByRole('radio', { name: '127.0.0.1' }).click();
      // As long as nothing is known of it, another one can be chosen.
      await chosen.getByText('127.0.0.1').waitFor();
      await expect.poll(() => page.getByLabel('Task').count()).toBe(0);
      const before = edge.sessions.size;
      tell();
      await chosen.getByText('laptop').waitFor();
      await page.getByLabel('Task').fill('say on the laptop');
      await page.getByRole('button', { name: 'Start' }).click();
      await page.locator('.bubble', { hasText: 'on the laptop' }).waitFor();
      expect([...laptop.sessions.values()].filter(({ object }) => object.first_message === 'say on the laptop')).toHaveLength(1);
      expect(edge.sessions.size).toBe(before);
    });

    test('a_page_without_a_token_keeps_what_is_open_and_written_when_it_is_known_under_one', async () => {
      await fresh(size);
      await goto(page, '/?token=demo');
      await page.locator('.item').first().waitFor({ state: 'attached' });
      await quiet();
      await context.route('**/messages', (asked) => asked.abort());
      const second = await context.newPage();
      await goto(second, '/');
      await second.locator('.item', { hasText: 'Login accepts the password' }).first().click();
      await second.locator('.md table').waitFor();
      const place = second.url();
      await second.getByLabel('Message').fill('say what was written before');
      await second.getByRole('button', { name: 'Send', exact: true }).click();
      const unsent = second.locator('.dock .queue li', { hasText: 'what was written before' });
      await unsent.waitFor();
      tell();
      await known(second);
      await second.locator('.md table').waitFor();
      await unsent.waitFor();
      expect(second.url()).toBe(place);
      // Nor does a reload lose it, which knows the machine by its name alone.
      await expect.poll(() => second.evaluate(() => {
        const kept = (name: string): Record<string, unknown>[] => JSON.parse(localStorage.getItem(name) ?? '[]') as Record<string, unknown>[];
        return kept('arp.outbox').map(({ machine }) => machine);
      })).toEqual([expect.not.stringMatching(new RegExp(`^${/#\/s\/([^/]+)/.exec(place)?.[1]}$`))]);
      await second.reload();
      await second.locator('.md table').waitFor();
      expect(second.url()).toBe(place);
      await context.unroute('**/messages');
      await expect.poll(() => (edge.sessions.get('show')?.log ?? []).filter((event) => event.type === 'user_message' && event.text === 'say what was written before').length, { timeout: 60_000 }).toBe(1);
    });

    test.each([['stays', false], ['goes', true]] as const)('what_was_written_goes_out_in_order_when_two_ways_turn_out_to_be_one_and_that_one_%s', async (_, goes) => {
      await fresh(size);
      await goto(page, '/?token=demo');
      await known();
      // The other tab would send what waits, too.
      await page.goto('about:blank');
      await quiet();
      const second = await context.newPage();
      await goto(second, '/');
      // Listed by both ways; that the kept one leads to this edge is known, and it is the one that goes.
      const kept = `[href*="${idOfEdge(String(edge.info.edge_id))}"]`;
      await second.locator(`.item${goes ? kept : `:not(${kept})`}`, { hasText: 'Login accepts the password' }).click();
      await second.locator('.md table').waitFor();
      let go = (): void => undefined;
      const gone = new Promise<void>((resolve) => { go = resolve; });
      const asked: string[] = [];
      await context.route('**/messages', async (route) => {
        asked.push((route.request().postDataJSON() as { text: string }).text);
        if (asked.length === 1) await gone;
        await route.continue();
      });
      for (const text of ['say one', 'say two']) {
        await second.getByLabel('Message').fill(text);
        await second.getByRole('button', { name: 'Send', exact: true }).click();
        await second.locator('.dock .queue li', { hasText: text }).waitFor();
      }
      await expect.poll(() => asked).toEqual(['say one']);
      tell();
      await known(second);
      // Whatever comes within reach now, the first is still on its way.
      await second.evaluate(() => dispatchEvent(new Event('online')));
      await frames(second);
      expect(asked).toEqual(['say one']);
      go();
      const said = (): string[] => (edge.sessions.get('show')?.log ?? []).flatMap((event) => (event.type === 'user_message' && event.text.startsWith('say ') ? [event.text] : []));
      await expect.poll(said).toEqual(['say one', 'say two']);
      expect(asked).toEqual(['say one', 'say two']);
    });

    test('a_machine_that_is_away_is_told_where_a_session_is_begun_and_another_can_be_chosen', async () => {
      server.edges.set('other', liveMachine('laptop'));
      await open(size, '#/settings');
      await add('laptop');
      server.edges.delete('other');
      server.cut();
      await page.evaluate(() => { location.hash = '#/new'; });
      await page.reload();
      await page.getByLabel('Task').waitFor();
      const chosen = page.locator('.settings-rows button', { hasText: 'Machine' });
      await chosen.click();
      await page.locator('dialog').getByRole('radio', { name: 'laptop' }).click();
      await page.locator('.main .line.down').getByText('does not know this token').waitFor();
      await expect.poll(() => page.locator('.main .loading').count()).toBe(0);
      await chosen.getByText('laptop').click();
      await page.locator('dialog').getByRole('radio', { name: 'studio' }).click();
      await page.getByLabel('Task').waitFor();
    });
  });

  test('a_task_begins_in_the_directory_that_was_shown_while_it_was_written', async () => {
    const places = await begin(size, 'GET', /\/api\/directories$/);
    await page.getByLabel('Task').fill('say it here');
    const shown = page.locator('.settings-rows .value[title]').first();
    const place = await shown.getAttribute('title');
    await places.answer();
    await page.locator('.places .pick').first().waitFor();
    expect(await shown.getAttribute('title')).toBe(place);
    await page.getByRole('button', { name: 'Start' }).click();
    await page.locator('.bubble').waitFor();
    expect([...edge.sessions.values()].pop()?.object.project_path).toBe(place);
  });

  test('the_places_to_choose_from_are_all_there_when_they_come_later_than_the_choice', async () => {
    const places = await begin(size, 'GET', /\/api\/directories$/);
    await page.locator('.settings-rows button', { hasText: 'Directory' }).click();
    await page.locator('dialog').getByLabel('Path on the machine').waitFor();
    await places.answer();
    await page.locator('dialog').getByText('Git repositories').waitFor();
    await page.locator('dialog').getByText('~/code/dotfiles').click();
    await page.locator('.settings-rows .value', { hasText: 'dotfiles' }).waitFor();
  });

  test('a_machine_that_is_chosen_brings_its_own_directory_and_leaves_it_to_no_other', async () => {
    const laptop = liveMachine('laptop');
    Object.assign(laptop.info.defaults, { project_path: '/home/me/lap' });
    server.edges.set('other', laptop);
    await open(size, '#/settings');
    await page.getByRole('button', { name: 'Add a machine' }).click();
    await page.getByLabel('Address with the token').fill(`${base}/?token=other`);
    await page.getByRole('button', { name: 'Add', exact: true }).click();
    await page.locator('.rowlike').getByText('laptop', { exact: true }).first().waitFor();
    await page.evaluate(() => { location.hash = '#/new'; });
    const machine = page.locator('.settings-rows button', { hasText: 'Machine' });
    const directory = page.locator('.settings-rows .value[title]').first();
    // Its recent one has come.
    await expect.poll(() => directory.getAttribute('title')).toBe('/home/me/shop');
    const places = await hold('GET', /\/api\/directories$/);
    await machine.click();
    await page.locator('dialog').getByRole('radio', { name: 'laptop' }).click();
    await machine.getByText('laptop').waitFor();
    await places.asked;
    expect(await directory.getAttribute('title')).toBe('/home/me/lap');
    await page.getByLabel('Task').fill('say it runs there');
    await places.answer();
    await page.locator('.places .pick').first().waitFor();
    expect(await directory.getAttribute('title')).toBe('/home/me/lap');
    await page.getByRole('button', { name: 'Start' }).click();
    await page.locator('.bubble', { hasText: 'it runs there' }).waitFor();
    expect([...laptop.sessions.values()].pop()?.object.project_path).toBe('/home/me/lap');
    await goto(page, '/?token=demo#/new');
    await page.reload();
    await machine.getByText('studio').waitFor();
    await expect.poll(() => directory.getAttribute('title')).toBe('/home/me/shop');
  });

  test('what_is_installed_is_asked_for_again_while_it_is_not_known', async () => {
    await fresh(size);
    let refused = 0;
    await context.route('**/api/info', (asked) => (refused++ < 2 ? asked.fulfill({ status: 503, json: { type: 'error', code: 'busy', message: 'later' } }) : asked.continue()));
    await goto(page, '/?token=demo#/new');
    await page.getByLabel('Task').waitFor();
    expect(refused).toBeGreaterThan(2);
  });

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

  test('an_older_answer_does_not_take_the_place_of_a_newer_one', async () => {
    const gateway = edge.withGateway(busyGateway());
    await open(size, '#/settings');
    await page.locator('.gateway-link a').click();
    await page.locator('.tabs').getByRole('link', { name: 'Upstreams' }).click();
    const row = (name: string) => page.locator('.gateway .rows button', { hasText: name }).first();
    await row('official').waitFor();
    let go = (): void => undefined;
    const gone = new Promise<void>((resolve) => { go = resolve; });
    let asked = 0;
    await context.route(/\/api\/gateway\/upstreams$/, async (route) => {
      const response = await route.fetch();
      if (++asked === 1) await gone;
      await route.fulfill({ response });
    });
    gateway.add('claude', 'came-first');
    gateway.changed();
    await expect.poll(() => asked).toBe(1);
    gateway.add('claude', 'came-second');
    gateway.changed();
    await row('came-second').waitFor();
    const old = page.waitForResponse(/\/api\/gateway\/upstreams$/);
    go();
    await (await old).finished();
    await frames(page);
    expect(await row('came-second').count()).toBe(1);
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
