// Writes the content security policy of the relay's landing page (arp-server/src/public/landing.csp): its one
// script and one style are allowed by their hashes. With --check it only compares.
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const file = (name) => fileURLToPath(new URL(`../../../arp-server/src/public/${name}`, import.meta.url));
const html = readFileSync(file('landing.html'), 'utf8');
const hash = (tag) => {
  const inner = new RegExp(`<${tag}>([\\s\\S]*?)</${tag}>`).exec(html)[1];
  return `'sha256-${createHash('sha256').update(inner).digest('base64')}'`;
};
const policy = `default-src 'none'; script-src ${hash('script')}; style-src ${hash('style')}; img-src 'self' data:; media-src blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'\n`;
if (process.argv.includes('--check')) {
  if (readFileSync(file('landing.csp'), 'utf8') !== policy) {
    console.error('landing.csp does not fit landing.html. Run: node scripts/landing.mjs (in arp-client/console)');
    process.exit(1);
  }
} else writeFileSync(file('landing.csp'), policy);
