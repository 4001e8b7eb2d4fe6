//! Opens the console in a real Chromium at a phone's or a desk's size.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core';

export const SIZES = { phone: { width: 390, height: 844 }, desk: { width: 1440, height: 900 } } as const;
export type Size = keyof typeof SIZES;
/** `held`: the test holds requests back, which it cannot once a service worker has taken the page over. */
export interface Look { size: Size; theme?: 'light' | 'dark'; lang?: 'en' | 'zh'; scale?: number; held?: boolean }

/**
 * The browser that the tests drive: `CHROMIUM`, or Debian's, rather the one without windows: it is the same browser at
 * half of the processor time. `more`: further switches of its command line.
 */
export async function openBrowser(more: string[] = []): Promise<Browser> {
  const places = process.env['CHROMIUM'] ? [process.env['CHROMIUM']] : ['/usr/bin/chromium-headless-shell', '/usr/bin/chromium'];
  const executablePath = places.find(existsSync);
  if (!executablePath) throw new Error(`no browser at ${places.join(' or ')}: apt-get install chromium-headless-shell, or set CHROMIUM`);
  return chromium.launch({
    executablePath,
    env: { ...process.env, FONTCONFIG_FILE: join(import.meta.dirname, '../fonts.conf') } as Record<string, string>,
    args: ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', ...more],
  });
}

/** What went wrong inside a page: errors of scripts and violations of the policy. */
export const faults = new WeakMap<Page, string[]>();

/** A fresh device; `SLOW`: of a processor so many times slower. */
export async function device(browser: Browser, { size, theme = 'light', lang = 'en', scale = 1, held = false }: Look): Promise<BrowserContext> {
  const context = await browser.newContext({
    viewport: SIZES[size],
    colorScheme: theme,
    locale: lang === 'zh' ? 'zh-CN' : 'en-GB',
    timezoneId: 'Europe/Berlin',
    deviceScaleFactor: scale,
    serviceWorkers: held ? 'block' : 'allow',
    ...(size === 'phone' ? { hasTouch: true, isMobile: true } : {}),
  });
  context.on('page', (page) => {
    const list: string[] = [];
    faults.set(page, list);
    const slow = Number(process.env['SLOW'] ?? 0);
    if (slow) void context.newCDPSession(page).then((cdp) => cdp.send('Emulation.setCPUThrottlingRate', { rate: slow }), () => undefined);
    page.on('pageerror', (error) => list.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error' && /Content Security|Refused to|TrustedHTML|Uncaught/.test(message.text())) list.push(message.text());
    });
  });
  return context;
}

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

interface Violation { id: string; impact: string; nodes: { target: string[]; failureSummary: string }[] }

/** Waits until the page was drawn with what it holds now. */
export const frames = (page: Page): Promise<void> =>
  page.evaluate(() => new Promise<void>((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => resolve()))));

/** Makes the page one whose clock `halt` can stop. Before it is opened. */
export async function clocked(page: Page): Promise<void> {
  await page.clock.install();
  // Counted in the page: what it asked is known at once.
  await page.addInitScript(() => {
    const ask = window.fetch.bind(window);
    const counts = Object.assign(window, { unanswered: 0 });
    window.fetch = (...args) => {
      counts.unanswered++;
      return ask(...args).finally(() => { counts.unanswered--; });
    };
    window.WebSocket = class extends WebSocket {
      constructor(...args: ConstructorParameters<typeof WebSocket>) {
        super(...args);
        counts.unanswered++;
        let open = true;
        for (const known of ['open', 'close', 'error']) {
          this.addEventListener(known, () => {
            if (open) counts.unanswered--;
            open = false;
          });
        }
      }
    };
  });
}

/**
 * Stops the clock of a page: from here on its time goes as the test says, however slow the machine is. What the page
 * asked before has its answer then, and no line was made to look silent.
 */
export async function halt(page: Page): Promise<void> {
  // The clock leaps to where it stops, and every timer on the way runs out: so it leaps no further than it has to.
  for (let leap = 250; ; leap *= 2) {
    try {
      await page.clock.pauseAt(await page.evaluate(() => Date.now()) + leap);
      break;
    } catch (error) {
      if (leap > 4_000) throw error;
    }
  }
  await expect.poll(() => page.evaluate(() => (window as unknown as { unanswered: number }).unanswered)).toBe(0);
}

/**
 * Waits until the page stands still: no question that takes no answer yet, nothing that fades or slides. What ends
 * may begin the next (a question that becomes ready fades in), so it has to be still for some frames on end.
 */
export async function settled(page: Page): Promise<void> {
  await page.evaluate(() => new Promise<void>((resolve) => {
    let still = 0;
    const look = (): void => {
      const moves = document.getAnimations().some((one) => (one.pending || one.playState === 'running') && one.effect?.getComputedTiming().endTime !== Infinity);
      still = moves || document.querySelector('.ask.inert') ? 0 : still + 1;
      if (still > 2) resolve();
      else requestAnimationFrame(look);
    };
    look();
  }));
}

/** What axe finds that is serious or worse, as lines to read. */
export async function seriousFaults(page: Page): Promise<string[]> {
  await page.evaluate(axe);
  for (;;) {
    // What is fading has the contrast of its fading. If something began while axe looked, it looks again.
    await settled(page);
    const found = await page.evaluate(async () => {
      let began = false;
      const note = (): void => { began = true; };
      const events = ['transitionrun', 'animationstart'] as const;
      for (const name of events) document.addEventListener(name, note, true);
      const { axe: run } = globalThis as unknown as { axe: { run(): Promise<{ violations: Violation[] }> } };
      const { violations } = await run.run();
      for (const name of events) document.removeEventListener(name, note, true);
      return began ? null : violations;
    });
    if (!found) continue;
    return found
      .filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .flatMap(({ id, nodes }) => nodes.slice(0, 4).map((node) => `${id}: ${node.target.join(' ')} ${node.failureSummary.split('\n')[1] ?? ''}`));
  }
}
