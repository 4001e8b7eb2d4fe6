// Builds the console anew and compares it with the committed bundle. Compressed files are compared by what
// they unpack to: another version of Node may compress brotli differently.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = join(root, 'dist');
const fresh = mkdtempSync(join(tmpdir(), 'arp-console-'));

const list = (dir) => {
  const walk = (at) => readdirSync(at).flatMap((name) => (statSync(join(at, name)).isDirectory() ? walk(join(at, name)) : [relative(dir, join(at, name))]));
  return walk(dir).sort();
};
const unpack = (dir, name) => {
  const bytes = readFileSync(join(dir, name));
  return name.endsWith('.gz') ? gunzipSync(bytes) : name.endsWith('.br') ? brotliDecompressSync(bytes) : bytes;
};

let differs = [];
try {
  execFileSync(process.execPath, [join(root, 'node_modules/vite/bin/vite.js'), 'build', '--logLevel', 'warn', '--emptyOutDir', '--outDir', fresh], { cwd: root, stdio: 'inherit' });
  const [old, now] = [list(dist), list(fresh)];
  differs = [...new Set([...old, ...now])].filter((name) => !old.includes(name) || !now.includes(name) || !unpack(dist, name).equals(unpack(fresh, name)));
} finally {
  rmSync(fresh, { recursive: true, force: true });
}
if (differs.length) {
  console.error(`The committed bundle is not what the source makes: ${differs.join(', ')}\nRun: npm run build (in arp-client/console), and commit dist.`);
  process.exit(1);
}
console.log('The committed bundle is what the source makes.');
