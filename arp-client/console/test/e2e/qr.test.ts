//! The first open: the QR code that arpc prints into a terminal is read as a camera reads it, and its address is
//! opened; and a code before a camera is scanned by the landing page and by the console.

import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
// Another decoder than the console's own: what both read is a code.
import jsQR from 'jsqr';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { device, faults, openBrowser } from './browser';
import { binary, RealMachine } from './machine';
import { cannotRun } from './visit';

/** Pixels of one module of a code. */
const MODULE = 8;

/** Black and white, as rows of booleans (true: light). */
type Bitmap = boolean[][];

/** What a dark terminal shows for the lines of half blocks: each character is two pixels high. */
function bitmap(lines: string[]): Bitmap {
  const halves: Record<string, [boolean, boolean]> = { ' ': [false, false], '▀': [true, false], '▄': [false, true], '█': [true, true] };
  return lines.flatMap((line) => {
    const pairs = [...line].map((character): [boolean, boolean] => halves[character] ?? [false, false]);
    return [pairs.map(([top]) => top), pairs.map(([, bottom]) => bottom)];
  });
}

/** Reads the code of a bitmap as a camera that looks at it. */
function read(code: Bitmap): string | null {
  const height = code.length * MODULE;
  const width = (code[0]?.length ?? 0) * MODULE;
  const pixels = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const light = code[Math.floor(y / MODULE)]?.[Math.floor(x / MODULE)] ?? false;
    pixels.fill(light ? 255 : 0, (y * width + x) * 4, (y * width + x) * 4 + 3);
  }
  return jsQR(pixels, width, height, { inversionAttempts: 'dontInvert' })?.data ?? null;
}

/** A film of one picture, for Chromium's pretended camera (YUV4MPEG2). */
function film(code: Bitmap): Buffer {
  const [width, height] = [640, 480];
  const scale = Math.floor((height - 40) / code.length);
  const [left, top] = [Math.floor((width - (code[0]?.length ?? 0) * scale) / 2), Math.floor((height - code.length * scale) / 2)];
  const luma = Buffer.alloc(width * height, 200);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const light = code[Math.floor((y - top) / scale)]?.[Math.floor((x - left) / scale)];
    if (light !== undefined) luma[y * width + x] = light ? 235 : 16;
  }
  const frame = Buffer.concat([Buffer.from('FRAME\n'), luma, Buffer.alloc(width * height / 2, 128)]);
  return Buffer.concat([Buffer.from(`YUV4MPEG2 W${width} H${height} F10:1 Ip A1:1 C420mpeg2\n`), frame, frame]);
}

describe.skipIf(cannotRun('the QR code'))('first open', { timeout: 60_000 }, () => {
  const machine = new RealMachine();
  const folder = mkdtempSync(join(tmpdir(), 'arp-qr-'));
  let terminal: ChildProcess;
  let shown = '';
  let code: Bitmap = [];
  let url = '';

  beforeAll(async () => {
    await machine.start();
    // A terminal of its own, without which arpc prints no code.
    terminal = spawn('python3', ['-c', 'import pty, sys; pty.spawn(sys.argv[1:])', binary('arpc') ?? '', ...machine.edgeArgs('second'), '--data-dir', join(folder, 'data')], { env: machine.env, cwd: folder, stdio: ['pipe', 'pipe', 'inherit'] });
    terminal.stdout?.setEncoding('utf8').on('data', (data: string) => (shown += data));
    const plain = (): string[] => shown.split(/\r?\n/).map((line) => line.replace(/\x1b\[[0-9;]*m/g, ''));
    url = await vi.waitFor(() => {
      code = bitmap(plain().filter((line) => /^[ ▀▄█]{20,}$/.test(line)));
      const text = code.length ? read(code) : null;
      if (!text) throw new Error(`no code in: ${shown}`);
      return text;
    }, { timeout: 30_000 });
    expect(plain()).toContain(`Public URL: ${url}`);
  });
  afterAll(async () => {
    terminal?.kill('SIGTERM');
    await machine.stop();
    rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  });

  const withCamera = async (use: (browser: Browser) => Promise<void>): Promise<void> => {
    const path = join(folder, 'camera.y4m');
    writeFileSync(path, film(code));
    const browser = await openBrowser(['--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream', `--use-file-for-fake-video-capture=${path}`]);
    await use(browser).finally(() => browser.close());
  };

  test('the code in the terminal leads a phone to the inbox, and the token leaves the address bar', async () => {
    const browser = await openBrowser();
    const context = await device(browser, { size: 'phone' });
    const page = await context.newPage();
    await page.goto(url);
    await page.locator('.new-pill').waitFor();
    expect(page.url()).toBe(`${machine.base}/`);
    expect(await page.evaluate(() => performance.getEntriesByType('navigation').length)).toBe(1);
    expect(faults.get(page)).toEqual([]);
    await browser.close();
  });

  test('the landing page scans the code before the camera and opens the machine', () => withCamera(async (browser) => {
    const context = await device(browser, { size: 'phone' });
    const page = await context.newPage();
    await page.goto(`${machine.base}/`);
    await page.getByRole('button', { name: 'Scan the code' }).click();
    await page.locator('.new-pill').waitFor({ timeout: 20_000 });
    expect(page.url()).toBe(`${machine.base}/`);
    expect(faults.get(page)).toEqual([]);
  }));

  test('the console scans the code of a second machine, and both are one list', () => withCamera(async (browser) => {
    const context = await device(browser, { size: 'desk' });
    const page = await context.newPage();
    await page.goto(`${machine.base}/?token=demo#/settings`);
    await page.getByRole('button', { name: 'Add a machine' }).click();
    await page.getByRole('button', { name: 'Scan the QR code' }).click();
    await page.getByRole('heading', { name: 'All machines', level: 1 }).waitFor({ timeout: 20_000 });
    expect(await page.evaluate(() => localStorage.getItem('arp.machines'))).toContain('second');
    expect(faults.get(page)).toEqual([]);
  }));
});
