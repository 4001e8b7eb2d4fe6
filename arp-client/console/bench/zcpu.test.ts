import { test } from 'vitest';
import { writeFileSync } from 'node:fs';
import { liveMachine } from '../dev/mock/data';
import { MockServer } from '../dev/mock/server';
import { device, openBrowser } from '../test/e2e/browser';

test('cpu', async () => {
  const browser = await openBrowser();
  const server = new MockServer();
  server.edges.set('demo', liveMachine('studio'));
  const base = await server.listen();
  const context = await device(browser, { size: 'phone' });
  const page = await context.newPage();
  const cdp = await context.newCDPSession(page);
  await page.goto(`${base}/?token=demo#/new`);
  await page.getByLabel('Task').fill(process.env.PROMPT ?? 'code 1600');
  await page.getByRole('button', { name: 'Start' }).click();
  await page.waitForFunction(() => (document.querySelector('.md')?.textContent?.length ?? 0) > 45_000, undefined, { timeout: 60_000 });
  await cdp.send('Profiler.enable');
  await cdp.send('Profiler.setSamplingInterval', { interval: 200 });
  await cdp.send('Profiler.start');
  await page.waitForTimeout(5000);
  const { profile } = await cdp.send('Profiler.stop');
  writeFileSync('/tmp/con/cpu.json', JSON.stringify(profile));
  await context.close(); await browser.close(); await server.close();
}, 300_000);
