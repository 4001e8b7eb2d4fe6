//! The line between a phone and a real machine: relay and edge restarted, sockets refused, the page reloaded, the
//! phone asleep, another network, no network. An agent counts meanwhile: each lost or doubled word would be seen.

import { createServer, type AddressInfo } from 'node:net';
import type { Browser } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { device, openBrowser } from './browser';
import { RealMachine } from './machine';
import { Middle } from './middle';
import { cannotRun, counted, Visit } from './visit';

describe.skipIf(cannotRun('the line to a real machine'))('the line', { timeout: 120_000 }, () => {
  const machine = new RealMachine();
  let browser: Browser;
  let visit: Visit | undefined;
  let middle: Middle | undefined;

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
    await middle?.close();
    visit = middle = undefined;
  });

  /** A session whose agent counts to `count` over so many seconds. */
  const counting = async (at: Visit, count: number, seconds: number): Promise<void> => {
    await machine.answer(counted(count), seconds);
    await at.begin('count');
    await at.reached(3);
  };
  /** The same phone, with a network of its own in between. */
  const through = async (): Promise<{ at: Visit; net: Middle }> => {
    const net = middle = new Middle(new URL(machine.base));
    const at = visit = await Visit.open(browser, machine, { size: 'phone' }, await net.listen());
    return { at, net };
  };

  test('the relay is killed in the middle of a stream and started again: the page says so, and no word is lost or doubled', async () => {
    const at = visit = await Visit.open(browser, machine, { size: 'phone' });
    await counting(at, 120, 6);
    await machine.killRelay();
    const line = at.page.locator('.main .line.down');
    await line.waitFor();
    expect(await line.innerText()).toMatch(/Offline since \d\d:\d\d\..*relay does not answer/s);
    await machine.startRelay();
    await line.waitFor({ state: 'detached', timeout: 40_000 });
    await at.done(1);
    await at.nothingLost(120);
    await at.send('say after the restart');
    await at.said('after the restart');
  });

  test('arpc is killed in the middle of a stream and started again: the agent worked on, and no word is lost or doubled', async () => {
    const at = visit = await Visit.open(browser, machine, { size: 'desk' });
    await counting(at, 120, 6);
    await machine.killEdge();
    const line = at.page.locator('.main .line.down');
    await line.waitFor();
    expect(await line.innerText()).toMatch(/machine is not connected/);
    await machine.startEdge();
    await line.waitFor({ state: 'detached', timeout: 40_000 });
    await at.done(1);
    await at.nothingLost(120);
  });

  test('the page is reloaded in the middle of a stream', async () => {
    const at = visit = await Visit.open(browser, machine, { size: 'phone' });
    await counting(at, 160, 5);
    for (const number of [10, 60]) {
      await at.reached(number);
      await at.page.reload();
    }
    await at.done(1);
    await at.nothingLost(160);
  });

  test('where WebSockets are refused, events come by SSE: streams, approvals and cuts too', async () => {
    const { at, net } = await through();
    net.noSockets = true;
    net.cut();
    await counting(at, 120, 5);
    net.cut();
    await at.reached(40);
    net.cut();
    await at.done(1);
    await at.nothingLost(120);
    await at.send('run tool: touch by-sse.txt');
    await at.asked('touch by-sse.txt');
    await at.allow();
    await at.done(2);
    expect(await at.exists('by-sse.txt')).toBe(true);
    expect(net.seen.streams).toBeGreaterThan(0);
  });

  test('a phone that slept while its network went silent shows all at once when it wakes', async () => {
    const { at, net } = await through();
    await counting(at, 100, 4);
    const cdp = await at.context.newCDPSession(at.page);
    await cdp.send('Page.setWebLifecycleState', { state: 'frozen' });
    net.silence();
    await expect.poll(async () => (await at.machine.statusOf(await machine.newest())), { timeout: 30_000 }).toBe('idle');
    net.speak();
    await cdp.send('Page.setWebLifecycleState', { state: 'active' });
    // What it had is dead and says nothing: the page asks at once and does not wait for a time-out of the network.
    await at.page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    await at.page.locator('.turn-end').waitFor({ timeout: 8_000 });
    await at.nothingLost(100);
  });

  test('another network in the middle of a stream: the old line is dead, the new one goes on from the last word', async () => {
    const { at, net } = await through();
    await counting(at, 160, 8);
    await at.context.setOffline(true);
    const line = at.page.locator('.main .line.down');
    await line.waitFor();
    expect(await line.innerText()).toMatch(/Offline since \d\d:\d\d\..*This device is offline/s);
    net.silence();
    net.speak();
    await at.context.setOffline(false);
    await line.waitFor({ state: 'detached' });
    await at.done(1);
    await at.nothingLost(160);
  });

  test('two hundred words a second stream whole (how long the page is busy at a time is printed)', async () => {
    const at = visit = await Visit.open(browser, machine, { size: 'phone' });
    await at.page.evaluate(() => {
      const long: number[] = [];
      Object.assign(globalThis, { long });
      new PerformanceObserver((list) => list.getEntries().forEach(({ duration }) => long.push(Math.round(duration)))).observe({ type: 'longtask' });
    });
    await machine.answer(counted(1_200), 6);
    await at.begin('count quickly');
    await at.done(1);
    await at.nothingLost(1_200);
    const long = await at.page.evaluate(() => (globalThis as unknown as { long: number[] }).long);
    console.info(`1200 words in 6 s: tasks over 50 ms: ${long.length ? long.join(' ') : 'none'}`);
  });

  test('without a network nothing spins for ever: each screen says what is wrong and how to go on', async () => {
    const { at, net } = await through();
    await at.begin('say before');
    await at.done(1);
    await at.context.setOffline(true);
    await at.page.locator('.main .line.down').waitFor();
    await at.send('say written without a network');
    const unsent = at.page.locator('.dock .queue li.waiting', { hasText: 'written without a network' });
    await unsent.waitFor();
    await at.page.evaluate(() => { location.hash = '#/files'; });
    await at.page.locator('.main .empty[role=alert] button').waitFor();
    await expect.poll(() => at.page.locator('.loading').count()).toBe(0);
    await at.page.goBack();
    await at.context.setOffline(false);
    await at.page.locator('.main .line.down').waitFor({ state: 'detached' });
    // What was written meanwhile is sent by itself, once.
    await at.said(/^written without a network/);
    await at.done(2);
    expect((await at.events()).filter(({ type, text }) => type === 'user_message' && text?.includes('without a network'))).toHaveLength(1);
    expect(net.seen.sockets).toBeGreaterThan(0);
  });

  test('beside a machine that serves MySQL, a socket that the browser opened early is greeted, reset, and costs the page no request', async () => {
    const { at, net } = await through();
    const database = createServer((socket) => void socket.end());
    await new Promise<void>((resolve) => database.listen(0, '127.0.0.1', resolve));
    const end = await machine.carries('db', (database.address() as AddressInfo).port, '--protocol', 'mysql');
    try {
      // A request that is given up while its socket is opened leaves a silent one behind, if it is given up neither too
      // early nor too late: it is tried until one was left. Browsers use a silent socket even if something came on it,
      // so what is asked between greeting and reset is lost; nothing is asked then.
      await expect.poll(async () => {
        if (net.silent() || net.seen.greeted > net.seen.unused) return 0;
        if (!net.seen.unused) await at.page.evaluate(async () => {
          const gone = new AbortController();
          const asked = fetch('/api/health', { credentials: 'omit', headers: { 'X-Arp-Token': 'demo' }, signal: gone.signal });
          setTimeout(() => gone.abort());
          await asked.catch(() => undefined);
        });
        return net.seen.unused;
      }, { timeout: 90_000, interval: 100 }).toBeGreaterThan(0);
      const answers = await at.page.evaluate(() => Promise.all(Array.from({ length: 8 }, async (_, n) => {
        const credentials = n % 2 ? 'omit' : 'include';
        return fetch('/api/health', { cache: 'no-store', credentials, headers: { 'X-Arp-Token': 'demo' } }).then(({ status }) => status, String);
      })));
      expect(answers).toEqual(Array(8).fill(200));
    } finally {
      await end();
      database.close();
    }
  });

  test('a machine with a key of its own asks for it once, and then shows what waits', async () => {
    const vault = new RealMachine(['--edge-key', 'open-sesame-open']);
    try {
      await vault.start();
      const context = await device(browser, { size: 'phone' });
      const page = await context.newPage();
      await page.goto(`${vault.base}/?token=demo`);
      await page.locator('.panel input').fill('not this one');
      await page.locator('.panel .primary').click();
      await page.getByText('That is not the key.').waitFor();
      await page.locator('.panel input').fill('open-sesame-open');
      await page.locator('.panel .primary').click();
      await page.locator('.panel').waitFor({ state: 'detached' });
      await page.getByText('Nothing is running yet').waitFor();
      await page.reload();
      await page.getByText('Nothing is running yet').waitFor();
      expect(await page.evaluate(() => document.cookie)).not.toContain('sesame');
      await context.close();
    } finally {
      await vault.stop();
    }
  });
});
