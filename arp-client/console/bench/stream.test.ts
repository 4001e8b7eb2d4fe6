//! How long a frame takes while something long streams, on a phone that is four times slower. Not a test: its figures
//! say something on a machine that does nothing else. Run by `scripts/bench-console.sh`; `ONLY=code,list` runs some, `THROTTLE=1` slows nothing down.

import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Browser, Page } from 'playwright-core';
import { liveMachine } from '../dev/mock/data';
import { MockServer } from '../dev/mock/server';
import { device, openBrowser, type Size } from '../test/e2e/browser';

/** Slower by this factor than the machine is. */
const THROTTLE = Number(process.env['THROTTLE'] ?? 4);
const ROUNDS = Number(process.env['ROUNDS'] ?? 5);
/** Frames of a round. */
const FRAMES = 240;

let browser: Browser;
let server: MockServer;
let base: string;

beforeAll(async () => {
  browser = await openBrowser();
  server = new MockServer();
  base = await server.listen();
});
afterAll(async () => {
  await browser.close();
  await server.close();
});

/** The value below which this part of the values lies. */
const part = (values: readonly number[], of: number): number => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * of))] ?? 0;

interface Scene { name: string; what: string; size?: Size; begin(page: Page): Promise<unknown> }

/** Gives an agent this prompt, and waits until a long beginning is there. */
const told = (prompt: string, selector: string, length: number, more?: (page: Page) => Promise<unknown>) => async (page: Page): Promise<void> => {
  await page.goto(`${base}/?token=demo#/new`);
  await page.getByLabel('Task').fill(prompt);
  await page.getByRole('button', { name: 'Start' }).click();
  await more?.(page);
  await page.waitForFunction(([where, least]) => (document.querySelector(where as string)?.textContent?.length ?? 0) > (least as number), [selector, length] as const, { timeout: 60_000 });
};

const scenes: Scene[] = [
  { name: 'code', what: '1,600 lines of code', begin: told('code 1600', '.md pre', 55_000) },
  { name: 'list', what: 'a list of 1,600 items', begin: told('list 1600', '.md', 30_000) },
  { name: 'loose', what: 'a list of 800 items with blank lines between', begin: told('loose 800', '.md', 14_000) },
  { name: 'table', what: 'a table of 1,600 rows', begin: told('table 1600', '.md', 20_000) },
  { name: 'prose', what: 'one paragraph of 1,600 sentences', begin: told('prose 1600', '.md', 50_000) },
  { name: 'output', what: '10,000 lines of a program, opened', begin: told('output 10000', '.card .output', 1_000, (page) => page.locator('.card-head', { hasText: 'make all' }).click()) },
  {
    name: 'sessions', what: '50 sessions of a list, each told of once a second', size: 'desk',
    begin: async (page) => {
      const edge = liveMachine('studio');
      server.edges.set('demo', edge);
      const many = Array.from({ length: 50 }, (_, n) => edge.add({ id: `many${n}`, title: `Session ${n} of many`, status: 'running', turns: 1, turn: { number: 1, started_at: new Date().toISOString(), prompt: '' } }));
      await page.goto(`${base}/?token=demo#/`);
      await page.locator('.item', { hasText: 'Session 7 of many' }).waitFor();
      let n = 0;
      const timer = setInterval(() => {
        many[n % 50]?.changed({ activity: `step ${n++}`, updated_at: new Date().toISOString() });
      }, 20);
      page.once('close', () => clearInterval(timer));
    },
  },
];

const only = process.env['ONLY']?.split(',');
test.each(scenes.filter(({ name }) => !only || only.includes(name)))('$what', async ({ what, size = 'phone', begin }) => {
  const rounds: { busy: number; p50: number; p95: number; longest: number; frames: number }[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    server.edges.set('demo', liveMachine('studio'));
    const context = await device(browser, { size });
    const page = await context.newPage();
    const cdp = await context.newCDPSession(page);
    await begin(page);
    await cdp.send('Emulation.setCPUThrottlingRate', { rate: THROTTLE });
    // Time of the page's own thread: what else the machine does says nothing of it. (Its throttling counts.)
    await cdp.send('Performance.enable', { timeDomain: 'threadTicks' });
    const busy = async (): Promise<number> => ((await cdp.send('Performance.getMetrics')).metrics.find(({ name }) => name === 'TaskDuration')?.value ?? 0) * 1000;
    const before = await busy();
    const gaps = await page.evaluate((frames) => new Promise<number[]>((resolve) => {
      const found: number[] = [];
      let last = performance.now();
      const step = (now: number): void => {
        found.push(now - last);
        last = now;
        if (found.length > frames || document.querySelector('.turn-end')) resolve(found.slice(1));
        else requestAnimationFrame(step);
      };
      requestAnimationFrame(step);
    }), FRAMES);
    const spent = (await busy()) - before;
    rounds.push({ busy: spent / gaps.length, p50: part(gaps, 0.5), p95: part(gaps, 0.95), longest: Math.max(...gaps), frames: gaps.length });
    await context.close();
  }
  console.log(`${what}, ${THROTTLE}x throttling; milliseconds, ${ROUNDS} rounds (median)`);
  for (const name of ['busy', 'p50', 'p95', 'longest'] as const) {
    const values = rounds.map((round) => round[name]);
    console.log(`${{ busy: 'work of the page a frame', p50: 'between frames, p50', p95: 'between frames, p95', longest: 'between frames, longest' }[name].padEnd(26)} ${part(values, 0.5).toFixed(1).padStart(7)}   (${values.map((value) => value.toFixed(1)).join(', ')})`);
  }
  expect(rounds.every(({ frames }) => frames > 20)).toBe(true);
}, 600_000);
