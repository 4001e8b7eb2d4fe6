// Writes what belongs to the relay's pages (arp-server/src/pages): error.csp, and for the landing page landing.csp, which allows
// its one script (and what that loads) and its one style by their hashes, and scan.js, the console's reader of QR
// codes by itself. With --check it only compares.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'vite';

const file = (name) => fileURLToPath(new URL(`../../../arp-server/src/pages/${name}`, import.meta.url));
const html = readFileSync(file('landing.html'), 'utf8');
const errorHtml = readFileSync(file('error.html'), 'utf8');
const hash = (tag, page = html) => {
  const inner = new RegExp(`<${tag}>([\\s\\S]*?)</${tag}>`).exec(page)[1];
  return `'sha256-${createHash('sha256').update(inner).digest('base64')}'`;
};
const policy = `default-src 'none'; script-src ${hash('script')} 'strict-dynamic'; style-src ${hash('style')}; img-src 'self' data:; media-src blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'\n`;
const { output: [scanner] } = await build({
  configFile: false,
  logLevel: 'silent',
  build: {
    write: false,
    target: 'es2022',
    modulePreload: false,
    rollupOptions: {
      input: fileURLToPath(new URL('../src/ui/decoder.ts', import.meta.url)),
      // Not a module: what a policy allows by hash may add script elements, and may not import.
      output: { format: 'iife', name: 'ArpScan' },
      preserveEntrySignatures: 'strict',
    },
  },
});
// The pages of errors look whether the machine is back.
const errorPolicy = `default-src 'none'; script-src ${hash('script', errorHtml)}; style-src ${hash('style', errorHtml)}; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'\n`;
const made = { 'landing.csp': policy, 'error.csp': errorPolicy, 'scan.js': scanner.code };
for (const [name, text] of Object.entries(made)) {
  if (!process.argv.includes('--check')) writeFileSync(file(name), text);
  else if (!existsSync(file(name)) || readFileSync(file(name), 'utf8') !== text) {
    console.error(`${name} does not fit its sources. Run: node scripts/landing.mjs (in arp-client/console)`);
    process.exit(1);
  }
}
