//! How long a frame takes while a long block of code streams, on a phone that is four times slower. Not a test: its
//! figures say something on a machine that does nothing else. Run by `scripts/bench-console.sh`.

import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Browser } from 'playwright-core';
import { liveMachine } from '../dev/mock/data';
import { MockServer } from '../dev/mock/server';
import { device, openBrowser } from '../test/e2e/browser';

/** Slower by this factor than the machine is. */
const THROTTLE = 4;
const ROUNDS = 5;

let browser: Browser;
let server: MockServer;
let base: string;

beforeAll(async () => {
  browser = await openBrowser();
  server = new MockServer();
  server.edges.set('demo', liveMachine('studio'));
  base = await server.listen();
});
afterAll(async () => {
  await browser.close();
  await server.close();
});

/** The value below which this part of the values lies. */
const part = (values: readonly number[], of: number): number => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * of))] ?? 0;

test('a long block of code', async () => {
  const rounds: { busy: number; p50: number; p99: number; longest: number; frames: number }[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const context = await device(browser, { size: 'phone' });
    const page = await context.newPage();
    const cdp = await context.newCDPSession(page);
    await page.goto(`${base}/?token=demo#/new`);
    await page.getByLabel('Task').fill('code 1600');
    await page.getByRole('button', { name: 'Start' }).click();
    await page.waitForFunction(() => (document.querySelector('.md pre')?.textContent?.length ?? 0) > 55_000, undefined, { timeout: 60_000 });
    await cdp.send('Emulation.setCPUThrottlingRate', { rate: THROTTLE });
    // Time of the page's own thread: what else the machine does says nothing of it. (Its throttling counts.)
    await cdp.send('Performance.enable', { timeDomain: 'threadTicks' });
    const busy = async (): Promise<number> => ((await cdp.send('Performance.getMetrics')).metrics.find(({ name }) => name === 'TaskDuration')?.value ?? 0) * 1000;
    const before = await busy();
    const gaps = await page.evaluate(() => new Promise<number[]>((resolve) => {
      const found: number[] = [];
      let last = performance.now();
      const step = (now: number): void => {
        found.push(now - last);
        last = now;
        if (found.length > 240 || document.querySelector('.turn-end')) resolve(found.slice(1));
        else requestAnimationFrame(step);
      };
      requestAnimationFrame(step);
    }));
    const spent = (await busy()) - before;
    rounds.push({ busy: spent / gaps.length, p50: part(gaps, 0.5), p99: part(gaps, 0.99), longest: Math.max(...gaps), frames: gaps.length });
    await context.close();
  }
  console.log(`1,600 lines of code, a hundred a second, ${THROTTLE}x throttling; milliseconds, ${ROUNDS} rounds (median)`);
  for (const name of ['busy', 'p50', 'p99', 'longest'] as const) {
    const values = rounds.map((round) => round[name]);
    console.log(`${{ busy: 'work of the page a frame', p50: 'between frames, p50', p99: 'between frames, p99', longest: 'between frames, longest' }[name].padEnd(26)} ${part(values, 0.5).toFixed(1).padStart(7)}   (${values.map((value) => value.toFixed(1)).join(', ')})`);
  }
  expect(rounds.every(({ frames }) => frames > 20)).toBe(true);
}, 600_000);
