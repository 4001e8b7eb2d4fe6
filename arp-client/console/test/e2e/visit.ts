//! A person at the console of a real machine: what is tapped and typed, and what is then to be seen. Says nothing
//! in the page's language where a place can be named otherwise, so that it serves both.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { expect } from 'vitest';
import { device, faults, type Look } from './browser';
import { missingParts, type RealMachine } from './machine';

/** Is something missing for these journeys? Says what; with CI=true that is a failure. */
export function cannotRun(what: string): boolean {
  const missing = missingParts();
  if (!missing.length) return false;
  const text = `${what} needs: ${missing.join('; ')}`;
  if (process.env['CI'] === 'true') throw new Error(text);
  console.warn(`SKIPPED: ${text}`);
  return true;
}

/** One event as the API tells it. */
export interface Told { seq: number; type: string; text?: string; delta?: boolean; id?: string }

/** The numbers from 1 to `count`, as an agent would say them: each lost or doubled one is seen. */
export const counted = (count: number): string => Array.from({ length: count }, (_, index) => index + 1).join(' ');

export class Visit {
  private constructor(readonly machine: RealMachine, readonly context: BrowserContext, readonly page: Page, readonly base: string) {}

  /** Opens the Public URL on a fresh device. `base`: the way there, if it is not the relay itself. */
  static async open(browser: Browser, machine: RealMachine, look: Look, base = machine.base): Promise<Visit> {
    const context = await device(browser, look);
    const page = await context.newPage();
    await page.goto(`${base}/?token=demo`);
    await page.locator('.new-pill').waitFor();
    return new Visit(machine, context, page, base);
  }

  /** Ends the visit; nothing may have gone wrong inside the page. */
  async end(): Promise<void> {
    if (process.env['SHOT']) await this.page.screenshot({ path: process.env['SHOT'] });
    const wrong = faults.get(this.page);
    await this.context.close();
    expect(wrong).toEqual([]);
  }

  /** A tap and a sentence: the session is then open. */
  async begin(text: string, agent = 'Claude Code', model = ''): Promise<void> {
    const { page } = this;
    await page.locator('.new-pill').click();
    await page.locator('.agents label', { hasText: agent }).click();
    if (model) {
      await page.locator('.settings-rows button').last().click();
      await page.locator('dialog input').fill(model);
      await page.locator('dialog form button').click();
    }
    await page.locator('#new-prompt').fill(text);
    await page.locator('.new-foot button').click();
    await page.locator('.bubble').waitFor();
  }

  /** Sends a message; while a turn runs it is queued. */
  async send(text: string): Promise<void> {
    await this.page.locator('#reply').fill(text);
    await this.page.locator('button.send').click();
  }

  said(text: string | RegExp): Promise<void> {
    return this.page.locator('.md', { hasText: text }).last().waitFor();
  }

  /** Waits for the end of so many turns. */
  async done(count: number): Promise<void> {
    await this.page.waitForFunction((n) => document.querySelectorAll('.turn-end').length >= n, count, { timeout: 60_000 });
  }

  /** Chooses a line of the session's menu. */
  async menu(icon: RegExp | string): Promise<void> {
    await this.page.locator('.head button[aria-haspopup=dialog]').click();
    await this.page.locator('dialog .rows').getByText(icon).click();
  }

  async allow(): Promise<void> {
    await this.page.locator('.decide .primary').click();
  }

  async deny(reason: string): Promise<void> {
    await this.page.locator('.decide-more button').first().click();
    await this.page.locator('#deny-reason').fill(reason);
    await this.page.locator('.decide .danger').click();
  }

  /** The question of the agent stands there, with this command in full. */
  async asked(command: string): Promise<void> {
    await this.page.locator('.approval .command', { hasText: command }).waitFor();
  }

  async stop(): Promise<void> {
    await this.menu('Stop session');
    await this.page.locator('dialog').getByRole('button', { name: 'Stop session' }).click();
    await this.page.locator('.state.cancelled').waitFor();
  }

  /** Our id of the open session. */
  session(): Promise<string> {
    return this.page.evaluate(() => location.hash.split('/').pop() ?? '');
  }

  /** Everything that the session's log holds, by the API. */
  async events(): Promise<Told[]> {
    const answer = await fetch(`${this.machine.base}/api/sessions/${await this.session()}/events?since=0&limit=2000&token=demo`);
    return (await answer.json() as { events: Told[] }).events;
  }

  /** The session object of the API. */
  async details(): Promise<{ project_path: string; model: string | null }> {
    const answer = await fetch(`${this.machine.base}/api/sessions/${await this.session()}?lines=none&token=demo`);
    return (await answer.json() as { session: { project_path: string; model: string | null } }).session;
  }

  /** Is there such a file in the session's directory? */
  async exists(name: string): Promise<boolean> {
    return existsSync(join((await this.details()).project_path, name));
  }

  /** Waits until a number that the agent counts to is on the page. */
  async reached(number: number): Promise<void> {
    await this.page.waitForFunction((n) => Number([...document.querySelectorAll('.md')].pop()?.textContent?.trim().split(/\s+/).pop()) >= n, number, { timeout: 60_000 });
  }

  /** The last text of the page is the numbers from 1 to `count`, and the log has no gap. */
  async nothingLost(count: number): Promise<void> {
    expect((await this.page.locator('.md').last().innerText()).trim().split(/\s+/).map(Number)).toEqual(Array.from({ length: count }, (_, index) => index + 1));
    const events = await this.events();
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
  }
}
