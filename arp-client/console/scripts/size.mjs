// Measures the first load: the document and everything it names, gzipped (what a browser gets over plain HTTP;
// brotli over TLS is smaller). Fails above the promise.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const LIMIT = 100 * 1024;
const dist = fileURLToPath(new URL('../dist', import.meta.url));
const html = readFileSync(join(dist, 'index.html'), 'utf8');
const names = ['index.html', ...[...html.matchAll(/(?:src|href)="\.\/([^"]+)"/g)].map((match) => match[1])];
let sum = 0;
for (const name of names) {
  let bytes;
  try {
    bytes = readFileSync(join(dist, `${name}.gz`));
  } catch {
    bytes = readFileSync(join(dist, name));
  }
  console.log(`${String(bytes.length).padStart(8)}  ${name}`);
  sum += bytes.length;
}
console.log(`${String(sum).padStart(8)}  first load, limit ${LIMIT}`);
if (sum > LIMIT) process.exit(1);
