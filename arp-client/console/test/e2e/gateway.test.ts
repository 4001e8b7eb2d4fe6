//! The gateway's pages: what a person sees and does there, on a phone and at a desk, against the pretended machine.

import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { liveMachine } from '../../dev/mock/data';
import type { MockEdge } from '../../dev/mock/edge';
import { busyGateway, type MockGateway } from '../../dev/mock/gateway';
import { MockServer } from '../../dev/mock/server';
import { clocked, device, faults, halt, openBrowser, seriousFaults, SIZES, type Size } from './browser';

let browser: Browser;
let server: MockServer;
let base: string;
let edge: MockEdge;
let gateway: MockGateway;
let context: BrowserContext;
let page: Page;

beforeAll(async () => {
  browser = await openBrowser();
});
afterAll(() => browser.close());
beforeEach(async () => {
  server = new MockServer();
  edge = liveMachine();
  gateway = edge.withGateway(busyGateway());
  server.edges.set('demo', edge);
  base = await server.listen();
});
afterEach(async () => {
  expect(faults.get(page) ?? []).toEqual([]);
  await context.close();
  await server.close();
});

/** Opens the gateway by the way that a person takes. */
const open = async (size: Size, tab = '', lang: 'en' | 'zh' = 'en', clock = false): Promise<void> => {
  context = await device(browser, { size, lang });
  page = await context.newPage();
  if (clock) await clocked(page);
  await page.goto(`${base}/?token=demo#/settings`);
  await page.locator('.gateway-link a').click();
  await page.locator('.gateway .tabs').waitFor();
  if (tab) await page.locator('.tabs').getByRole('link', { name: tab }).click();
};
/** Nothing spills over the side, nothing serious for axe. */
const sound = async (size: Size): Promise<void> => {
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(SIZES[size].width);
  expect(await seriousFaults(page)).toEqual([]);
};
const row = (name: string) => page.locator('.gateway .rows button', { hasText: name }).first();

describe.each(['phone', 'desk'] as const)('%s', (size) => {
  test('nothing_of_it_is_fetched_before_it_is_opened', async () => {
    context = await device(browser, { size });
    page = await context.newPage();
    await page.goto(`${base}/?token=demo`);
    await page.locator('.item').first().waitFor();
    await page.evaluate(() => navigator.serviceWorker.ready);
    expect(server.seen.filter(({ url }) => /gateway/i.test(url))).toEqual([]);
    await page.evaluate(() => { location.hash = '#/gateway/'; });
    await page.locator('.figures').first().waitFor();
    expect(server.seen.some(({ url }) => /assets\/Gateway/.test(url))).toBe(true);
  });

  test('what_is_under_way_is_seen_as_it_goes_and_counted_when_it_is_over', async () => {
    await open(size);
    await page.locator('.rowlike', { hasText: 'Claude Code' }).getByText('official').waitFor();
    await page.getByText('Nothing is under way.').waitFor();
    const before = await page.locator('.figures').first().innerText();
    const { id } = gateway.under({ model: 'claude-opus-4-8' });
    const line = page.locator('.rowlike', { hasText: 'claude-opus-4-8' });
    await line.getByText('Asking').waitFor();
    gateway.under({ id, phase: 'streaming', output: 300, millis: 2_000, failed: 1, redacted: 2 });
    await line.getByText('150 tokens/s').waitFor();
    await line.getByText('after 1 failure · 2 secrets hidden').waitFor();
    await sound(size);
    gateway.request({ id, model: 'claude-opus-4-8', cost: 1.25 });
    await page.getByText('Nothing is under way.').waitFor();
    await page.getByRole('heading', { name: 'Newest' }).waitFor();
    await expect.poll(() => page.locator('.figures').first().innerText()).not.toBe(before);
    expect(await page.locator('.bars li').count()).toBe(30);
  });

  test('a_cut_line_to_the_gateway_comes_back_and_a_request_that_ended_meanwhile_is_not_under_way', async () => {
    await open(size);
    const { id } = gateway.under({ model: 'lost-model' });
    await page.locator('.rowlike', { hasText: 'lost-model' }).waitFor();
    server.away = true;
    server.cut();
    gateway.request({ id, model: 'lost-model' });
    server.away = false;
    await page.locator('.rowlike', { hasText: 'lost-model' }).waitFor({ state: 'detached', timeout: 60_000 });
    gateway.under({ model: 'after-the-cut' });
    await page.locator('.rowlike', { hasText: 'after-the-cut' }).waitFor();
  });

  test('an_upstream_is_added_and_its_key_is_never_seen_again', async () => {
    await open(size, 'Upstreams');
    await page.getByRole('button', { name: 'Add an upstream' }).first().click();
    const sheet = page.locator('dialog');
    await sheet.getByLabel('Name').fill('official');
    await sheet.getByLabel('Address').fill('http://relay.example');
    // The name is taken, and such an address would carry the key in the open.
    expect(await sheet.getByRole('button', { name: 'Add', exact: true }).isDisabled()).toBe(true);
    await sheet.getByText('The key would travel unencrypted.').waitFor();
    await sheet.getByLabel('Name').fill('fresh relay/1');
    await sheet.getByLabel('Address').fill('https://relay.example/v1');
    await sheet.getByLabel('Token (Authorization)').fill('sk-very-secret');
    expect(await sheet.getByLabel('Token (Authorization)').getAttribute('type')).toBe('password');
    await sheet.getByLabel('Weight').fill('3');
    await sound(size);
    await sheet.getByRole('button', { name: 'Add', exact: true }).click();
    await sheet.waitFor({ state: 'detached' });
    await row('fresh relay/1').waitFor();
    expect(gateway.keys.get('claude/fresh relay/1')).toEqual({ auth_token: 'sk-very-secret' });
    expect(await page.locator('html').innerHTML()).not.toContain('sk-very-secret');
    expect(await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, location.href]))).not.toContain('sk-very-secret');

    // What is not typed anew stays; what is taken away is told to be.
    await row('fresh relay/1').click();
    await sheet.getByRole('button', { name: 'Change' }).click();
    expect(await sheet.getByLabel('Token (Authorization)').inputValue()).toBe('');
    await sheet.getByLabel('Weight').fill('5');
    await sheet.getByRole('button', { name: 'Save' }).click();
    await row('fresh relay/1').getByText('Weight 5').waitFor();
    const sent = (): object[] => bodies;
    expect(sent().pop()).toEqual({ weight: 5 });
    await sheet.getByRole('button', { name: 'Change' }).click();
    await sheet.getByLabel('Take away').first().check();
    await sheet.getByRole('button', { name: 'Save' }).click();
    await row('fresh relay/1').getByText('no key').waitFor();
    expect(sent().pop()).toEqual({ auth_token: '' });
  });

  test('an_upstream_is_switched_tested_disabled_and_taken_out', async () => {
    await open(size, 'Upstreams');
    await row('team-relay').getByText(/Rests for \d:\d\d/).waitFor();
    await sound(size);
    await row('team-relay').click();
    const sheet = page.locator('dialog');
    gateway.verdict = { ok: false, status: 401, millis: 120, message: 'it answered 401: the key was not accepted' };
    await sheet.getByRole('button', { name: 'Test' }).click();
    await sheet.getByText('It does not work: it answered 401: the key was not accepted').waitFor();
    gateway.verdict = { ok: true, status: 200, millis: 640, message: '' };
    await sheet.getByRole('button', { name: 'Test' }).click();
    await sheet.getByText('It answered in 0.6 s.').waitFor();
    await sheet.getByRole('button', { name: 'Forget failures' }).click();
    await sheet.getByText('Works').waitFor();
    await sheet.getByRole('button', { name: 'Make active' }).click();
    await expect.poll(() => gateway.services.claude.active).toBe('team-relay');
    await sheet.getByRole('button', { name: 'Make active' }).waitFor({ state: 'detached' });
    await sound(size);
    await sheet.getByLabel('Off until the end of').fill('2099-01-31');
    await sheet.getByRole('button', { name: 'Switch off' }).click();
    await sheet.getByText('Off until 2099-01-31').waitFor();
    await sheet.getByRole('button', { name: 'Switch on' }).click();
    await sheet.getByText('Works').waitFor();
    await sheet.getByRole('button', { name: 'Take out' }).click();
    await sheet.getByText('Its address and keys are taken out').waitFor();
    await sheet.getByRole('button', { name: 'Take out' }).click();
    await row('team-relay').waitFor({ state: 'detached' });
    expect(gateway.services.claude.upstreams.map(({ name }) => name)).toEqual(['official', 'old-relay']);
    // How they take turns.
    const balance = page.locator('.balance').first();
    await balance.locator('summary').click();
    // The choice is shown as soon as the gateway has it: to look at it at once is too early.
    await balance.getByRole('radio', { name: 'In proportion' }).click({ force: true });
    await expect.poll(() => balance.getByRole('radio', { name: 'In proportion' }).isChecked()).toBe(true);
    await balance.getByText('Each as often as its weight says.').waitFor();
    await balance.getByLabel('Failures until it rests').fill('5');
    await balance.getByLabel('Failures until it rests').blur();
    await expect.poll(() => [gateway.services.claude.mode, gateway.services.claude.failure_threshold]).toEqual(['proportional', 5]);
    await sound(size);
  });

  test('requests_are_found_and_told_whole_and_hostile_names_do_nothing', async () => {
    gateway.request({ model: 'x\u202egnp<img src=x onerror=window.pwned=1>', error: '<script>window.pwned=2</script>', status: 502, upstream: 'needle-relay', failed: [['first', 'it answered 503']] });
    await open(size, 'Requests');
    const line = row('x‹U+202E›gnp<img');
    await line.waitFor();
    await sound(size);
    await line.click();
    const sheet = page.locator('dialog');
    await sheet.getByText('it answered 503').waitFor();
    await sheet.getByText('needle-relay').waitFor();
    await sound(size);
    await page.keyboard.press('Escape');
    await page.getByLabel('Search requests').fill('needle');
    await expect.poll(() => page.locator('.gateway .rows li').count()).toBe(1);
    await page.getByLabel('Search requests').fill('');
    await page.getByRole('button', { name: 'Codex' }).click();
    await expect.poll(() => page.locator('.gateway .rows li', { hasNotText: 'gpt-5.5' }).count()).toBe(0);
    await page.getByRole('button', { name: 'Codex' }).click();
    await page.getByRole('button', { name: 'Failed' }).click();
    await row('all upstreams are resting').waitFor();
    await page.getByRole('button', { name: 'Failed' }).click();
    await expect.poll(() => page.locator('.gateway .rows li').count()).toBe(50);
    const all = gateway.requests.length;
    await expect.poll(async () => {
      const older = page.getByRole('button', { name: 'Older requests' });
      if (await older.count()) await older.click();
      return page.locator('.gateway .rows li').count();
    }).toBe(all);
    // One that ends now stands on top, once.
    gateway.request({ model: 'just-now' });
    await expect.poll(() => page.locator('.gateway .rows li').first().innerText()).toContain('just-now');
    expect(await page.locator('.gateway .rows li').count()).toBe(all + 1);
    expect(await page.evaluate(() => (globalThis as { pwned?: number }).pwned)).toBeUndefined();
  });

  test('models_are_routed_and_what_is_not_known_here_stays_in_the_file', async () => {
    await open(size, 'Routing');
    await page.getByRole('radio', { name: 'Other models' }).check({ force: true });
    const claude = page.locator('.gateway .block', { hasText: 'Claude Code' });
    await claude.getByRole('button', { name: 'Add a line' }).click();
    const save = page.getByRole('button', { name: 'Save' });
    expect(await save.isDisabled()).toBe(true);
    await claude.getByLabel('When this model is asked for').fill('claude-haiku-*');
    await claude.getByLabel('use this model').fill('claude-sonnet-5');
    await sound(size);
    await save.click();
    await expect.poll(() => gateway.routes).toEqual({
      mode: 'model-mapping', modelMappings: { claude: [{ source: 'claude-haiku-*', target: 'claude-sonnet-5', source_type: 'model' }], codex: [] }, configMappings: { claude: [], codex: [] }, ours: { kept: true },
    });
    await page.locator('.save-bar').waitFor({ state: 'detached' });
    await claude.getByLabel('use this model').fill('other');
    await page.locator('.save-bar').getByRole('button', { name: 'Cancel' }).click();
    expect(await claude.getByLabel('use this model').inputValue()).toBe('claude-sonnet-5');
    await claude.getByRole('button', { name: 'Take this line out' }).click();
    await save.click();
    await expect.poll(() => gateway.routes.modelMappings?.['claude']).toEqual([]);
  });

  test('filters_are_tried_before_they_count_and_a_wrong_one_is_refused_with_its_reason', async () => {
    await open(size, 'Filters');
    await page.getByRole('button', { name: 'Add a rule' }).click();
    await page.getByLabel('Find').fill('corp-[0-9]+');
    await page.getByLabel('Replace by').fill('HOST');
    await page.getByLabel('against what stands above').fill('ask bob@corp.example about corp-77');
    await page.getByRole('button', { name: 'Try', exact: true }).click();
    const result = page.locator('.panel[role=status]');
    await result.getByText('ask [MAIL_1] about HOST').waitFor();
    await result.getByText('Mail addresses: 1 × bo…le').waitFor();
    await result.getByText('Rule 1: 1 × c').waitFor();
    // Tried only: nothing counts yet.
    expect(gateway.filters.rules).toEqual([]);
    await sound(size);
    await page.getByLabel('Find').fill('corp-[');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.locator('.toast.bad', { hasText: 'is no pattern' }).waitFor();
    expect(await page.getByLabel('Find').inputValue()).toBe('corp-[');
    await page.getByLabel('Find').fill('corp-[0-9]+');
    await page.getByLabel('Bank and credit card numbers').check({ force: true });
    await page.getByLabel('Words to hide, one a line').fill('atlas\n\nhermes\n');
    await page.getByRole('button', { name: 'Save' }).click();
    await expect.poll(() => [gateway.filters.rules, gateway.filters.redaction.presets, gateway.filters.redaction.words]).toEqual([[{ source: 'corp-[0-9]+', target: 'HOST', op: 'replace' }], ['mails', 'bank_cards'], ['atlas', 'hermes']]);
    // What was not touched is not sent again.
    await page.getByLabel('Let requests pass').check({ force: true });
    await page.getByRole('button', { name: 'Save' }).click();
    await expect.poll(() => Object.keys(bodies[bodies.length - 1] ?? {})).toEqual(['redaction']);
  });

  test('a_session_says_who_serves_it_and_is_switched_from_there', async () => {
    const show = edge.sessions.get('show');
    show?.changed({ gateway: gateway.session({ failovers: 1 }) });
    context = await device(browser, { size });
    page = await context.newPage();
    await page.goto(`${base}/?token=demo`);
    await page.locator('.item', { hasText: 'Login accepts the password' }).click();
    const line = page.locator('.line.at-gateway');
    await line.getByText('official · claude-opus-4-8 · 55.1K tokens · $0.42 · 1 failover').waitFor();
    await sound(size);
    await line.click();
    const sheet = page.locator('dialog');
    await sheet.getByText('94.1% from the cache').or(sheet.getByText('94% from the cache')).first().waitFor();
    await sheet.getByLabel('team-relay').check();
    await line.getByText('team-relay').waitFor();
    await expect.poll(() => show?.object.gateway?.choice).toEqual({ upstream: 'team-relay', model: null });
    await sound(size);
    await sheet.getByLabel('Model of this session').fill('claude-haiku-5');
    await sheet.getByRole('button', { name: 'Save' }).click();
    await expect.poll(() => show?.object.gateway?.choice.model).toBe('claude-haiku-5');
    await page.locator('.choices:not(:disabled)').waitFor();
    await sheet.getByLabel('As configured').check();
    await expect.poll(() => show?.object.gateway?.choice.upstream).toBe(null);
    await sheet.getByRole('button', { name: 'Close' }).click();
    // As it happens, without asking.
    edge.emit('gateway', { type: 'usage_update', session_id: 'show', request: {}, gateway: gateway.session({ redacted: 2, upstream: 'second' }) });
    await line.getByText('2 secrets hidden').waitFor();
    edge.emit('gateway', { type: 'usage_update', session_id: 'show', request: {}, gateway: gateway.session({ waits_until: Date.now() + 3_600_000 }) });
    await line.getByText('It goes on by itself at').waitFor();
    await sound(size);
  });

  test('where_nothing_but_a_gateway_is_its_pages_are_the_console', async () => {
    edge.info = { ...edge.info, agents: [], fs_enabled: false, host_name: null as unknown as string, home_dir: null as unknown as string, client_id: null, gateway: true, gateway_only: true };
    edge.sessions.clear();
    edge.past.length = 0;
    context = await device(browser, { size });
    page = await context.newPage();
    await page.goto(`${base}/?token=demo`);
    await page.locator('.figures').first().waitFor();
    expect(await page.locator('.side').isVisible()).toBe(false);
    expect(await page.locator('.nav a').allInnerTexts()).toEqual(['Gateway', 'Settings']);
    await sound(size);
    await page.locator('.nav').getByRole('link', { name: 'Settings' }).click();
    await page.getByRole('heading', { name: 'Appearance' }).waitFor();
    await sound(size);
    await page.locator('.nav').getByRole('link', { name: 'Gateway' }).click();
    await page.locator('.figures').first().waitFor();
  });

  test('usage_is_counted_by_what_one_asks_for', async () => {
    await open(size, 'Usage');
    await page.locator('.sums tbody tr').first().waitFor();
    await sound(size);
    await page.getByRole('button', { name: 'Model', exact: true }).click();
    await page.locator('.sums tbody th', { hasText: 'claude-sonnet-5' }).waitFor();
    const counted = async (): Promise<number> => (await page.locator('.sums tbody td:nth-of-type(1)').allInnerTexts()).reduce((total, text) => total + Number(text.replaceAll(',', '')), 0);
    const total = Number((await page.locator('.sums tfoot td').first().innerText()).replaceAll(',', ''));
    expect(await counted()).toBe(total);
    expect(total).toBe(gateway.requests.length);
    await page.getByRole('radio', { name: '7 days' }).check({ force: true });
    await expect.poll(async () => Number((await page.locator('.sums tfoot td').first().innerText()).replaceAll(',', ''))).toBeLessThan(total);
  });

  test('a_gateway_that_does_not_run_says_how_to_start_it_and_is_there_once_it_does', async () => {
    edge.gateway = null;
    await open(size, '', 'en', true);
    await page.getByText('arpc gateway start').waitFor();
    await sound(size);
    // It asks by itself now and then: that clock stands still.
    await halt(page);
    const again = page.getByRole('button', { name: 'Try again' });
    await again.waitFor();
    edge.gateway = gateway;
    await again.dispatchEvent('click');
    while (!(await page.locator('.figures').count())) await page.clock.runFor(16);
    await page.clock.resume();
    gateway.under({ model: 'heard-again' });
    await page.locator('.rowlike', { hasText: 'heard-again' }).waitFor({ timeout: 60_000 });
  });

  test('one_step_back_leads_out_whatever_page_is_open', async () => {
    await open(size, 'Usage');
    await page.locator('.tabs').getByRole('link', { name: 'Requests' }).click();
    await page.waitForURL(/requests$/);
    await page.goBack();
    await page.waitForURL(/#\/settings$/);
  });

  test('bodies_are_kept_only_when_switched_on_and_rules_are_tried_on_them', async () => {
    await open(size, 'Requests');
    const box = page.getByRole('switch', { name: /Keep bodies/ });
    expect(await box.isChecked()).toBe(false);
    await box.check({ force: true });
    await expect.poll(() => gateway.recording.on).toBe(true);
    const { id } = gateway.request({ model: 'kept-model', recorded: true });
    gateway.bodies.set(id, '{"model":"kept-model","messages":[{"content":"to ‹hidden:mails›"}]}');
    gateway.answers.set(id, '[{"type":"content_block_delta","delta":{"text":"kept answer"}}]');
    await row('kept-model').click();
    await page.getByRole('button', { name: 'Show request and answer' }).click();
    await page.locator('dialog pre', { hasText: '"content": "to ‹hidden:mails›"' }).waitFor();
    await page.locator('dialog pre', { hasText: '"text": "kept answer"' }).waitFor();
    await sound(size);
    await page.locator('dialog').getByRole('button', { name: 'Close' }).click();
    gateway.answers.clear();
    await row('kept-model').click();
    await page.getByRole('button', { name: 'Show request and answer' }).click();
    await page.locator('dialog').getByText('None was kept').waitFor();
    await page.locator('dialog').getByRole('button', { name: 'Close' }).click();
    await page.locator('.tabs').getByRole('link', { name: 'Filters' }).click();
    await page.getByRole('button', { name: 'Try on recorded requests' }).click();
    await page.getByText('Of 1 recorded request:').waitFor();
    await page.locator('.tabs').getByRole('link', { name: 'Requests' }).click();
    await page.getByRole('button', { name: 'Delete what was kept' }).click();
    await expect.poll(() => gateway.bodies.size).toBe(0);
  });

  test('budgets_and_own_prices_are_seen_and_changed', async () => {
    await open(size, 'Budgets');
    await page.locator('.budgets .rowlike', { hasText: 'each day' }).getByText(/12\.40 of/).waitFor();
    await page.locator('.budgets .rowlike', { hasText: 'relay' }).getByText('Used up').waitFor();
    await sound(size);
    await page.getByRole('button', { name: 'Add a budget' }).click();
    const line = page.locator('.lines-edit').first().locator('li').last();
    const save = page.getByRole('button', { name: 'Save' });
    await line.getByLabel('Name').fill('a session');
    expect(await save.isDisabled()).toBe(true);
    await line.getByLabel('Dollars').fill('2.5');
    await line.locator('label', { hasText: 'Session' }).first().click();
    await line.locator('label', { hasText: 'Refuse' }).click();
    await save.click();
    await expect.poll(() => gateway.budgets[2]).toMatchObject({ name: 'a session', per: 'session', usd: 2.5, then: 'refuse' });
    expect(gateway.budgets[1]).toMatchObject({ name: 'relay', per: 'upstream', of: 'team-relay', usd: 5, then: 'warn' });

    await page.getByRole('button', { name: 'Add a price' }).click();
    const price = page.locator('.lines-edit').last().locator('li').last();
    await price.getByLabel('Model').fill('kimi-*');
    await price.getByLabel('Input').fill('0.5');
    await price.getByLabel('Output').fill('2');
    await save.click();
    await expect.poll(() => gateway.own.map(({ model, input, cache_read }) => [model, input, cache_read])).toEqual([['glm-*', 0.6, 0.06], ['kimi-*', 0.5, 0.05]]);
    await page.getByText('The table of 2026-11-28').click();
    await page.locator('.sums').getByText('claude-opus-5').waitFor();
    await sound(size);
  });
});

/** Bodies of the changes that the gateway was told. */
let bodies: object[] = [];
beforeEach(() => {
  bodies = [];
  const real = gateway.answer.bind(gateway);
  gateway.answer = (method, parts, query, body) => {
    if (method === 'PUT') bodies.push(body);
    return real(method, parts, query, body);
  };
});

test.each(['phone', 'desk'] as const)('%s: all of it in Chinese', async (size) => {
  await open(size, '', 'zh');
  const left = async (): Promise<string[]> => page.evaluate(() => {
    const names = /^(Claude Code|Codex|Gemini CLI|studio|claude-.*|gpt-.*|official|team-relay|old-relay|openai|arpc.*|POST.*|\d.*|\$.*)$/;
    const found: string[] = [];
    for (const element of document.querySelectorAll('.gateway *, dialog *')) {
      if (element.closest('svg, .mono, input')) continue;
      const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.textContent).join('').trim();
      if (/[A-Za-z]{3,}/.test(text) && !/[\u4e00-\u9fff]/.test(text) && !names.test(text) && !/[/.:]/.test(text)) found.push(text);
    }
    return found;
  });
  await page.locator('.figures').first().waitFor();
  expect(await left()).toEqual([]);
  for (const [tab, there] of [['上游', '.balance'], ['路由', '.segments'], ['过滤', '.settings-rows'], ['请求', '.rows li'], ['用量', '.sums']] as const) {
    await page.locator('.tabs').getByRole('link', { name: tab }).click();
    await page.locator(`.gateway ${there}`).first().waitFor();
    expect(await left()).toEqual([]);
  }
  await page.locator('.tabs').getByRole('link', { name: '上游' }).click();
  await row('team-relay').click();
  await page.locator('dialog').getByText('停用至（含当天）').waitFor();
  expect(await left()).toEqual([]);
  await page.locator('dialog').getByRole('button', { name: '修改' }).click();
  await page.locator('dialog').getByText('密钥只能在这里设置，不能查看。').waitFor();
  expect(await left()).toEqual([]);
});
