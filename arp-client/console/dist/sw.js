// Service worker of the console: keeps the shell (page, script, style, icons) for a machine or relay that is
// away. It never answers for the API, for another page of this origin, or for anything with a token in it.

const CACHE = 'arp-shell-1';
const scope = new URL(self.registration.scope);
/** A navigation that takes longer than this gets the kept shell, in milliseconds. */
const PATIENCE = 4000;

const isShell = (url) => url.origin === scope.origin && url.pathname === scope.pathname && !url.search;
const isAsset = (url) => url.origin === scope.origin && url.pathname.startsWith(`${scope.pathname}assets/`) && !url.search;
/** Only what says that it is the console is kept: the same address may belong to another page at another time. */
const isOurs = (response) => response.ok && response.headers.has('X-Arp-Console');

async function keepShell(response) {
  const html = await response.clone().text();
  const cache = await caches.open(CACHE);
  const before = await (await cache.match(scope.href))?.text();
  const wanted = [...html.matchAll(/(?:src|href)="\.\/([^"]+)"/g)].map((match) => new URL(match[1], scope).href);
  // Another build: what the old one was made of is of no use any more.
  for (const request of before === html ? [] : await cache.keys()) {
    if (request.url !== scope.href && !wanted.includes(request.url)) await cache.delete(request);
  }
  await cache.put(scope.href, response);
  for (const href of wanted) {
    if (await cache.match(href)) continue;
    const asset = await fetch(href, { credentials: 'same-origin' }).catch(() => null);
    if (asset && isOurs(asset)) await cache.put(href, asset);
  }
}

/** A part of the console, kept from the first time on: it is there when the machine is away. */
async function asset(event) {
  const kept = await caches.match(event.request.url, { cacheName: CACHE });
  if (kept) return kept;
  const fresh = await fetch(event.request);
  if (isOurs(fresh)) {
    const copy = fresh.clone();
    event.waitUntil(caches.open(CACHE).then((cache) => cache.put(event.request.url, copy)));
  }
  return fresh;
}

self.addEventListener('install', (event) => {
  self.skipWaiting();
  event.waitUntil(
    fetch(scope.href, { credentials: 'same-origin' })
      .then((response) => (isOurs(response) ? keepShell(response) : undefined))
      .catch(() => undefined),
  );
});

self.addEventListener('activate', (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) => Promise.all(names.filter((name) => name.startsWith('arp-shell-') && name !== CACHE).map((name) => caches.delete(name))))
      .then(() => self.clients.claim()),
  );
});

async function shell(event) {
  const kept = await caches.match(scope.href, { cacheName: CACHE });
  const fresh = fetch(event.request).then((response) => {
    if (isOurs(response)) event.waitUntil(keepShell(response.clone()));
    return response;
  });
  if (!kept) return fresh;
  const late = new Promise((resolve) => setTimeout(() => resolve(kept), PATIENCE));
  // The relay's "this machine is away" is told better by the console itself, which goes on trying.
  const answer = fresh.then((response) => (response.status >= 500 ? kept : response)).catch(() => kept);
  return Promise.race([answer, late]);
}

self.addEventListener('fetch', (event) => {
  if (event.request.method !== 'GET') return;
  const url = new URL(event.request.url);
  if (event.request.mode === 'navigate' && isShell(url)) event.respondWith(shell(event));
  else if (isAsset(url)) event.respondWith(asset(event));
});

self.addEventListener('notificationclick', (event) => {
  event.notification.close();
  const hash = String(event.notification.data ?? '#/');
  event.waitUntil(
    self.clients.matchAll({ type: 'window' }).then((pages) => {
      const page = pages.find((one) => one.url.startsWith(scope.href));
      if (!page) return self.clients.openWindow(new URL(hash, scope).href);
      return page.focus().then(() => page.navigate(new URL(hash, page.url.split('#')[0]).href));
    }),
  );
});
