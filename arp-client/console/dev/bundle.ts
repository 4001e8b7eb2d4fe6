//! Vite plugin: what a finished bundle needs to be embedded in the binary. Writes a `.gz` and a `.br` beside
//! every file that gains from it, and `assets.rs`, the table that `arp-client/src/console.rs` includes.
//! gzip is made by fflate (pure JavaScript), so the bytes do not depend on the machine's zlib.

import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';
import { gzipSync } from 'fflate';
import type { Plugin } from 'vite';

/** Content type by file extension; a file of another kind is a mistake and stops the build. */
const TYPES: Record<string, string> = {
  html: 'text/html; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  css: 'text/css; charset=utf-8',
  svg: 'image/svg+xml',
  png: 'image/png',
  webmanifest: 'application/manifest+json',
};

/** All files under `dir`, relative, sorted, without what this plugin writes itself. */
export function bundleFiles(dir: string): string[] {
  const found: string[] = [];
  const walk = (at: string): void => {
    for (const name of readdirSync(at)) {
      const path = join(at, name);
      if (statSync(path).isDirectory()) walk(path);
      else found.push(relative(dir, path).replaceAll('\\', '/'));
    }
  };
  walk(dir);
  return found.filter((name) => !/\.(gz|br|rs)$/.test(name)).sort();
}

/** Compresses the bundle in `dir` and writes its table. */
export function pack(dir: string): void {
  const rows: string[] = [];
  for (const name of bundleFiles(dir)) {
    const type = TYPES[name.split('.').pop() ?? ''];
    if (!type) throw new Error(`no content type for ${name}`);
    const bytes = readFileSync(join(dir, name));
    const tag = createHash('sha256').update(bytes).digest('hex').slice(0, 16);
    let packed = false;
    if (!name.endsWith('.png')) {
      const gz = gzipSync(bytes, { level: 9, mtime: 0 });
      const br = brotliCompressSync(bytes, {
        params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
      });
      packed = gz.length < bytes.length && br.length < bytes.length;
      if (packed) {
        writeFileSync(join(dir, `${name}.gz`), gz);
        writeFileSync(join(dir, `${name}.br`), br);
      }
    }
    const immutable = name.startsWith('assets/');
    const compressed = packed ? `Some((include_bytes!("${name}.gz"), include_bytes!("${name}.br")))` : 'None';
    rows.push(
      `    Asset {\n        path: "${name}",\n        content_type: "${type}",\n        tag: "${tag}",\n` +
        `        immutable: ${immutable},\n        identity: include_bytes!("${name}"),\n        compressed: ${compressed},\n    },\n`,
    );
  }
  writeFileSync(join(dir, 'assets.rs'), `// Written by the console's build; see arp-client/console/dev/bundle.ts.\n&[\n${rows.join('')}]\n`);
}

/** The plugin: packs the output directory once the bundle is written. */
export function packBundle(): Plugin {
  let dir = '';
  return {
    name: 'arp-pack-bundle',
    apply: 'build',
    configResolved(config) {
      dir = resolve(config.root, config.build.outDir);
    },
    closeBundle() {
      pack(dir);
    },
  };
}
