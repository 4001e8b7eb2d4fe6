//! What a person does, on a phone and at a desk, in a real browser against the pretended machine.

import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { liveMachine } from '../../dev/mock/data';
import type { MockEdge } from '../../dev/mock/edge';
import { MockServer } from '../../dev/mock/server';
import { drive, numbers } from './driven';
import { clocked, device, faults, frames, halt, openBrowser, type Size } from './browser';

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

const open = async (size: Size, more: { lang?: 'en' | 'zh'; url?: string; clock?: boolean; held?: boolean } = {}): Promise<void> => {
  context = await device(browser, { size, lang: more.lang ?? 'en', held: more.held ?? false });
  page = await context.newPage();
  if (more.clock) await clocked(page);
  await page.goto(more.url ?? `${base}/?token=demo`);
  await page.locator('.item').first().waitFor({ state: 'attached' });
};
/** Starts a session from the inbox with a sentence. */
const begin = async (text: string): Promise<void> => {
  await page.getByRole('link', { name: 'What should be done?' }).click();
  await page.getByLabel('Task').fill(text);
  await page.getByRole('button', { name: 'Start' }).click();
  await page.locator('.bubble').waitFor();
};
const reply = async (text: string): Promise<void> => {
  await page.getByLabel('Message').fill(text);
  await page.getByRole('button', { name: 'Send', exact: true }).click();
};
const said = (text: string | RegExp): Promise<void> => page.locator('.md', { hasText: text }).last().waitFor();
const done = (): Promise<void> => page.locator('.turn-end').last().waitFor();

describe.each(['phone', 'desk'] as const)('%s', (size) => {
  test('first_open_by_the_qr_url_shows_the_inbox_and_hides_the_token', async () => {
    await open(size);
    await page.getByRole('heading', { name: /Needs you/ }).waitFor();
    expect(page.url()).toBe(`${base}/`);
    await page.reload();
    await page.getByRole('heading', { name: /Needs you/ }).waitFor();
    expect(await page.title()).toMatch(/^\(2\) (New session · )?arp$/);
  });

  test('a_tap_and_a_sentence_start_a_session_that_streams', async () => {
    await open(size);
    const { say, push, end } = drive(edge);
    await begin('tell of the fox');
    say('The quick brown fox jumps over the lazy dog.');
    await page.locator('.md.streaming', { hasText: 'lazy dog.' }).waitFor();
    say(' It does so again and again.');
    await said('lazy dog. It does so again and again.');
    push({ type: 'usage', input_tokens: 18_240, cached_input_tokens: 15_900, output_tokens: 612, cost_usd: 0.0841 });
    end();
    await done();
    await page.locator('.usage', { hasText: '$0.08' }).waitFor();
  });

  test('a_command_is_shown_whole_and_allowed_once', async () => {
    await open(size);
    await begin('run npm test -- --watch=false');
    await page.locator('.approval .command', { hasText: 'npm test -- --watch=false' }).waitFor();
    await page.getByRole('button', { name: /Allow once/ }).click();
    await said('Ran npm test');
    await page.locator('.approval').waitFor({ state: 'detached' });
    await page.locator('.card-head', { hasText: 'npm test' }).click();
    await page.locator('.output', { hasText: 'ok' }).waitFor();
  });

  test('a_command_is_denied_with_a_reason_that_the_agent_hears', async () => {
    await open(size);
    await begin('run rm -rf build');
    await page.getByRole('button', { name: 'Deny with a reason' }).click();
    await page.getByLabel('What should it do instead?').fill('Move it to the trash');
    await page.locator('.decide').getByRole('button', { name: 'Deny' }).click();
    await said('Understood: Move it to the trash');
    await page.locator('.card.denied').waitFor();
  });

  test('a_command_is_changed_before_it_is_allowed', async () => {
    await open(size);
    await begin('run rm -rf build');
    await page.getByRole('button', { name: 'Change first' }).click();
    await page.locator('#edit-command').fill('rm -r build/tmp');
    await page.getByRole('button', { name: 'Allow as changed' }).click();
    await said('Ran rm -r build/tmp');
  });

  test('a_question_is_answered_by_choosing', async () => {
    await open(size);
    await begin('ask me');
    await page.getByText('PostgreSQL').click();
    await page.getByRole('button', { name: 'Answer' }).click();
    await said('You chose PostgreSQL.');
  });

  test('an_edit_shows_its_diff_and_can_wait', async () => {
    await open(size);
    await begin('edit it');
    await page.locator('.approval .d.add', { hasText: 'audit.note' }).waitFor();
    await page.getByRole('button', { name: 'Later' }).click();
    await page.locator('.waiting-bar').click();
    await page.getByRole('button', { name: 'Allow for this session' }).click();
    await said('That is all.');
  });

  test('messages_queue_while_a_turn_runs_can_be_taken_back_and_a_turn_can_be_interrupted', async () => {
    await open(size);
    await begin('slow count');
    await said(/1 2 3/);
    await reply('say second');
    await page.locator('.dock .queue li', { hasText: 'say second' }).waitFor();
    await reply('say third');
    await page.locator('.dock .queue li', { hasText: 'say third' }).getByRole('button', { name: 'Take back' }).click();
    await page.locator('.dock .queue li', { hasText: 'say third' }).waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Interrupt' }).click();
    await page.locator('.turn-end.interrupted').waitFor();
    await said('second');
    await expect.poll(() => page.locator('.bubble').count()).toBe(2);
  });

  test('a_cut_line_loses_nothing_and_doubles_nothing', async () => {
    await open(size);
    const { say, end } = drive(edge);
    await begin('count');
    for (let n = 1; n < 1200; n += 150) {
      say(numbers(n, n + 74));
      await said(`${n + 74}`);
      server.cut();
      // Said while nobody is there to hear it.
      say(numbers(n + 75, n + 149));
      await said(`${n + 149}`);
    }
    end();
    await done();
    const text = await page.locator('.md').last().innerText();
    expect(text.trim().split(/\s+/).map(Number)).toEqual(Array.from({ length: 1200 }, (_, index) => index + 1));
  });

  test.each(['itself', 'a tap'])('a_machine_that_is_away_is_told_with_the_time_and_comes_back_by %s', async (by) => {
    await open(size, { clock: true });
    await begin('say before');
    await done();
    server.away = true;
    server.cut();
    const line = page.locator('.main .line.down');
    await line.waitFor();
    expect(await line.innerText()).toMatch(/Offline since \d\d:\d\d\..*not connected to the relay/s);
    const again = line.getByRole('button', { name: 'Try again' });
    await again.waitFor();
    if (by === 'a tap') {
      // It would try by itself soon: that clock stands still. What was under way has failed before the machine is back:
      // the next attempt has its time.
      await halt(page);
      await line.getByText(/next try in/).waitFor({ state: 'attached' });
      server.away = false;
      await again.dispatchEvent('click');
      while (await line.count()) await page.clock.runFor(16);
      await page.clock.resume();
    } else server.away = false;
    await line.waitFor({ state: 'detached', timeout: 60_000 });
    await reply('say after');
    await said('after');
  });

  test('a_session_of_an_agents_history_is_found_read_resumed_and_deleted', async () => {
    await open(size);
    await page.getByRole('button', { name: 'Search' }).click();
    await page.getByLabel('Search sessions').last().fill('build slow');
    await page.locator('.item', { hasText: 'Why is the build slow' }).click();
    await said('Two places need a change');
    await page.getByLabel('Resume').fill('say resumed it');
    await page.getByRole('button', { name: 'Resume' }).click();
    await said('resumed it');
    await said('Two places need a change');

    await page.evaluate(() => { location.hash = '#/'; });
    await page.getByLabel('Search sessions').last().fill('');
    await page.locator('.item', { hasText: 'Write the changelog' }).click();
    await page.getByRole('button', { name: 'Delete session' }).click();
    await page.locator('dialog').getByRole('button', { name: 'Delete' }).click();
    await page.locator('.item', { hasText: 'Add a discount field' }).waitFor();
    await expect.poll(() => page.getByText('Write the changelog').count()).toBe(0);
    expect(edge.past.some(({ session }) => session.id === 'h2')).toBe(false);
  });

  test('a_session_is_stopped_and_deleted_after_asking', async () => {
    await open(size);
    await begin('slow count');
    await said(/1 2/);
    await page.getByRole('button', { name: 'More' }).click();
    await page.getByRole('button', { name: 'Stop session' }).click();
    await page.locator('dialog').getByRole('button', { name: 'Stop session' }).click();
    await page.locator('.state.cancelled').waitFor();
    await page.getByRole('button', { name: 'More' }).click();
    await page.getByRole('button', { name: 'Delete session' }).click();
    await page.locator('dialog').getByRole('radio', { name: /^Also the history/ }).check();
    await page.locator('dialog').getByRole('button', { name: 'Delete', exact: true }).click();
    await page.locator('.screen.session').waitFor({ state: 'detached' });
    await page.locator('.item').first().waitFor();
    await expect.poll(() => page.locator('.item', { hasText: 'slow count' }).count()).toBe(0);
  });

  test.each(['late', 'never'] as const)('after_a_deletion_the_address_is_the_lists_when_the_browser_steps_back_%s', async (when) => {
    await open(size);
    await begin('say hello');
    await done();
    await page.getByRole('button', { name: 'More' }).click();
    await page.getByRole('button', { name: 'Delete session' }).click();
    // The browser has other things to do: the step that takes the dialog away comes after the list is shown, or
    // after the page was loaded again.
    await page.evaluate(() => {
      const late = { asked: 0, taken: 0, back: history.back.bind(history) };
      history.back = () => { late.asked++; };
      addEventListener('popstate', () => { late.taken++; });
      Object.assign(globalThis, { late });
    });
    await page.locator('dialog').getByRole('button', { name: 'Delete', exact: true }).click();
    await page.locator('.screen.session').waitFor({ state: 'detached' });
    if (when === 'late') {
      await page.evaluate(() => {
        const { late } = globalThis as unknown as { late: { asked: number; back(): void } };
        for (let step = 0; step < late.asked; step++) late.back();
      });
      await page.waitForFunction(() => {
        const { late } = globalThis as unknown as { late: { asked: number; taken: number } };
        return late.taken >= late.asked && !(history.state as { sheet?: boolean } | null)?.sheet;
      });
      expect(await page.evaluate(() => location.hash)).toBe('#/');
    }
    await page.reload();
    await page.locator('.item', { hasText: 'Add a discount field' }).first().click();
    await page.locator('.screen.session').waitFor();
    await page.goBack();
    await page.locator('.screen.session').waitFor({ state: 'detached' });
    await page.locator('.item').first().waitFor();
    expect(await page.evaluate(() => location.hash)).toBe('#/');
  });

  test('each_step_back_closes_one_of_two_sheets_and_then_leaves', async () => {
    await open(size);
    await begin('say hello');
    await done();
    const [menu, palette] = [page.locator('dialog', { hasText: 'Delete session' }), page.locator('dialog.palette')];
    await page.getByRole('button', { name: 'More' }).click();
    await menu.waitFor();
    await page.keyboard.press('Control+k');
    await palette.waitFor();
    await page.goBack();
    await palette.waitFor({ state: 'detached' });
    expect(await menu.isVisible()).toBe(true);
    await page.goBack();
    await menu.waitFor({ state: 'detached' });
    expect(await page.locator('.screen.session').isVisible()).toBe(true);
    // Both are left behind by who goes elsewhere, and neither costs a step.
    await page.getByRole('button', { name: 'More' }).click();
    await page.keyboard.press('Control+k');
    await palette.waitFor();
    await palette.locator('input').fill('Settings');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => location.hash === '#/settings');
    expect(await page.locator('dialog').count()).toBe(0);
    await page.goBack();
    await page.locator('.screen.session').waitFor();
    expect(await page.locator('dialog').count()).toBe(0);
  });

  test('mode_and_model_change_while_it_lives', async () => {
    await open(size);
    await begin('say hello');
    await done();
    await page.locator('.composer .chip', { hasText: 'Ask first' }).click();
    await page.getByText('Plan only').click();
    await page.locator('.composer .chip', { hasText: 'Plan only' }).waitFor();
    await page.locator('.composer .chip', { hasText: 'opus' }).click();
    await page.locator('dialog').getByText('haiku').click();
    await page.locator('.composer .chip', { hasText: 'haiku' }).waitFor();
  });

  test('hostile_output_gets_nowhere', async () => {
    const away: string[] = [];
    await open(size);
    page.on('request', (request) => {
      if (!request.url().startsWith(base) && !request.url().startsWith('data:')) away.push(request.url());
    });
    page.on('dialog', () => away.push('dialog'));
    await begin('hostile output');
    await done();
    await page.locator('.card-head', { hasText: 'window.pwned=13' }).click();
    for (const link of await page.locator('.md a').all()) expect(await link.getAttribute('href')).toMatch(/^https:\/\/(good|evil)\.example/);
    expect(await page.evaluate(() => (globalThis as { pwned?: number }).pwned)).toBeUndefined();
    await expect.poll(() => page.locator('.main script, .main iframe, .main form:not(.composer), .main .md img, .main .md input').count()).toBe(0);
    expect(away).toEqual([]);
  });

  test('chinese_by_the_browser_and_by_the_switch', async () => {
    await open(size, { lang: 'zh' });
    await page.getByRole('heading', { name: /等你处理/ }).waitFor();
    expect(await page.locator('html').getAttribute('lang')).toBe('zh-CN');
    await page.locator('.nav').getByRole('link', { name: '设置' }).click();
    await page.getByRole('radio', { name: 'English' }).check({ force: true });
    await page.getByRole('heading', { name: 'Appearance' }).waitFor();
    await page.reload();
    await page.getByRole('heading', { name: 'Appearance' }).waitFor();
  });

  test('ten_thousand_events_open_at_once_and_scroll_to_the_beginning', async () => {
    await open(size, { held: true });
    const mark = server.seen.length;
    await page.getByText('Migrate 2,400 tables').first().click();
    await page.locator('.k-text').last().waitFor();
    // Its end is there before any other part of it was asked for.
    const asked = server.seen.slice(mark).filter(({ url }) => /\/events\?/.test(url)).map(({ url }) => url.replace(/.*\?/, ''));
    expect(asked).toEqual(['before=latest&limit=300']);
    const list = page.getByRole('log');
    const left = (): Promise<number> => list.evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight);
    await expect.poll(left).toBeLessThan(60);
    expect(await page.locator('.row').count()).toBeLessThan(120);

    // What is under the eye stays there when older pages come in above it.
    let release = (): void => undefined;
    const released = new Promise<void>((resolve) => { release = resolve; });
    await page.route(/\/events\?before=\d/, async (route) => {
      await released;
      await route.continue();
    });
    const older = page.waitForRequest(/\/events\?before=\d/);
    await list.evaluate((box) => { box.scrollTop = 1_200; });
    await older;
    await frames(page);
    const key = await page.evaluate(() => [...document.querySelectorAll('.row')].find((row) => row.getBoundingClientRect().top > 200)?.getAttribute('data-key'));
    const where = (): Promise<number> => page.locator(`[data-key="${key}"]`).evaluate((row) => row.getBoundingClientRect().top);
    const [before, height] = [await where(), await list.evaluate((box) => box.scrollHeight)];
    release();
    await expect.poll(() => list.evaluate((box) => box.scrollHeight)).toBeGreaterThan(height + 3_000);
    await frames(page);
    expect(Math.abs((await where()) - before)).toBeLessThan(3);
    await page.unroute(/\/events\?before=\d/);

    await expect.poll(async () => {
      await list.evaluate((box) => { box.scrollTop = 0; });
      return page.getByText('Beginning of the session').isVisible();
    }, { timeout: 90_000 }).toBe(true);
    await page.locator('.bubble', { hasText: 'Step 1:' }).waitFor();
    // All of it is there to be scrolled through, though little of it is in the page.
    expect(await list.evaluate((box) => box.scrollHeight)).toBeGreaterThan(300_000);
    expect(await page.locator('.row').count()).toBeLessThan(120);
    await page.getByRole('button', { name: 'To the end' }).click();
    await expect.poll(left).toBeLessThan(60);
  });
});
