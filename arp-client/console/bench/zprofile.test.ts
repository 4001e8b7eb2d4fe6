import { test } from 'vitest';
import { readFileSync, writeFileSync } from 'node:fs';
import { liveMachine } from '../dev/mock/data';
import { MockServer } from '../dev/mock/server';
import { device, openBrowser } from '../test/e2e/browser';

test('profile', async () => {
  const browser = await openBrowser();
  const server = new MockServer();
  server.edges.set('demo', liveMachine('studio'));
  const base = await server.listen();
  const variants = JSON.parse(readFileSync('/tmp/con/variants.json', 'utf8')) as Record<string, string>;
  for (const [name, css] of Object.entries(variants)) {
    const context = await device(browser, { size: 'phone' });
    const page = await context.newPage();
    const cdp = await context.newCDPSession(page);
    await page.goto(`${base}/?token=demo#/new`);
    await page.getByLabel('Task').fill(process.env.PROMPT ?? 'code 1600');
    await page.getByRole('button', { name: 'Start' }).click();
    await page.waitForFunction(() => (document.querySelector('.md')?.textContent?.length ?? 0) > 45_000, undefined, { timeout: 60_000 });
    await page.evaluate((css) => { const s = new CSSStyleSheet(); s.replaceSync(css); document.adoptedStyleSheets = [s]; }, css);
    await cdp.send('Emulation.setCPUThrottlingRate', { rate: Number(process.env.RATE ?? 4) });
    await browser.startTracing(page, { categories: ['devtools.timeline', 'disabled-by-default-devtools.timeline', 'toplevel', 'blink', 'cc', 'v8', 'disabled-by-default-v8.gc'] });
    await page.evaluate(() => new Promise<number>((resolve) => {
      let n = 0;
      const t0 = performance.now();
      const step = (): void => { n++; if (performance.now() - t0 > 3500 || document.querySelector('.turn-end')) resolve(n); else requestAnimationFrame(step); };
      requestAnimationFrame(step);
    }));
    const buffer = await browser.stopTracing();
    writeFileSync(`/tmp/con/trace-${name}.json`, buffer);
    await context.close();
  }
  await browser.close(); await server.close();
}, 300_000);
