//! Where the user is, in the fragment of the address: the document itself never changes, so relative URLs and
//! any path prefix keep working, and nothing of it is sent to a server.

import { signal } from '@preact/signals';

export type Route =
  | { name: 'inbox' }
  | { name: 'new' }
  | { name: 'session'; machine: string; id: string }
  | { name: 'history'; machine: string; agent: string; id: string }
  | { name: 'files'; machine: string; path: string; session: string }
  | { name: 'gateway'; machine: string; tab: GatewayTab }
  | { name: 'settings' };

/** The pages of a machine's gateway. */
export const GATEWAY_TABS = ['overview', 'upstreams', 'routing', 'filters', 'requests', 'usage', 'budgets'] as const;
export type GatewayTab = (typeof GATEWAY_TABS)[number];

/** Reads a fragment; what is not understood is the inbox. */
export function parseRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?');
  const parts = path.split('/').map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return '';
    }
  });
  const extra = new URLSearchParams(query);
  switch (parts[0]) {
    case 'new':
      return { name: 'new' };
    case 's':
      return parts[1] && parts[2] ? { name: 'session', machine: parts[1], id: parts[2] } : { name: 'inbox' };
    case 'history':
      return parts[1] && parts[2] && parts[3] ? { name: 'history', machine: parts[1], agent: parts[2], id: parts[3] } : { name: 'inbox' };
    case 'files':
      return { name: 'files', machine: parts[1] ?? '', path: extra.get('path') ?? '', session: extra.get('session') ?? '' };
    case 'gateway':
      return { name: 'gateway', machine: parts[1] ?? '', tab: GATEWAY_TABS.find((tab) => tab === parts[2]) ?? 'overview' };
    case 'settings':
      return { name: 'settings' };
    default:
      return { name: 'inbox' };
  }
}

/** The fragment of a route. */
export function hrefOf(route: Route): string {
  const e = encodeURIComponent;
  switch (route.name) {
    case 'inbox':
      return '#/';
    case 'new':
    case 'settings':
      return `#/${route.name}`;
    case 'session':
      return `#/s/${e(route.machine)}/${e(route.id)}`;
    case 'history':
      return `#/history/${e(route.machine)}/${e(route.agent)}/${e(route.id)}`;
    case 'gateway':
      return `#/gateway/${e(route.machine)}/${route.tab}`;
    case 'files': {
      const query = new URLSearchParams();
      if (route.path) query.set('path', route.path);
      if (route.session) query.set('session', route.session);
      return `#/files/${e(route.machine)}${query.size ? `?${query}` : ''}`;
    }
  }
}

export const route = signal<Route>(parseRoute(location.hash));

/** What an entry of the browser's history holds besides its address. */
interface Mark {
  /** Its place among the console's entries, from 0. */
  at?: number;
  /** It stands for a sheet over the place below it: going back closes the sheet. */
  sheet?: boolean;
}

/** The addresses of the console's entries, as far as this tab knows them. */
const TRAIL = 'arp.trail';
const trail: string[] = ((): string[] => {
  try {
    const kept: unknown = JSON.parse(sessionStorage.getItem(TRAIL) ?? '[]');
    return Array.isArray(kept) ? kept.map(String) : [];
  } catch {
    return [];
  }
})();
const markNow = (): Mark => (history.state ?? {}) as Mark;

/** Where we are in the trail. */
let at = markNow().at ?? 0;
/** Closes each open sheet, the one on top last. All of them together are one entry. */
let sheets: (() => void)[] = [];
/** A step back that we asked for, to take a sheet's entry away. The browser takes it when it comes to it. */
let stepping = false;
/** Where to go once that step was taken: until then the entry that would be written is still the sheet's. */
let next: { to: Route; replace: boolean } | null = null;
/** The same for a page that is loaded again before: it must not come up where nothing is any more. */
const NEXT = 'arp.next';

const here = (): string => location.hash || '#/';

function settle(): void {
  trail.length = Math.max(trail.length, at + 1);
  trail[at] = here();
  try {
    sessionStorage.setItem(TRAIL, JSON.stringify(trail));
  } catch {
    // Then a reload forgets how the console was walked through; going back still works.
  }
}

/** Remembers where to go after the step, for this page and for the one after a reload. */
function then(after: typeof next): void {
  next = after;
  try {
    if (after) sessionStorage.setItem(NEXT, JSON.stringify({ at, href: hrefOf(after.to) }));
    else sessionStorage.removeItem(NEXT);
  } catch {
    // Then only a reload at that very moment comes up where one was.
  }
}

/** Takes the sheet's entry away. */
function stepBack(): void {
  if (stepping) return;
  stepping = true;
  history.back();
}

/** Where the page before this one was about to go, if it was loaded again on the way. */
function wasNext(): Route | null {
  try {
    const kept = JSON.parse(sessionStorage.getItem(NEXT) ?? 'null') as { at?: unknown; href?: unknown } | null;
    return kept && kept.at === markNow().at && typeof kept.href === 'string' ? parseRoute(kept.href) : null;
  } catch {
    return null;
  }
}

const unfinished = wasNext();
then(null);
if (unfinished) {
  history.replaceState(markNow(), '', hrefOf(unfinished));
  route.value = unfinished;
}
if (markNow().sheet) {
  // Reloaded while a sheet was open: the sheet is gone, and so is its step.
  if (unfinished) then({ to: unfinished, replace: true });
  stepBack();
} else history.replaceState({ at } satisfies Mark, '');
settle();

addEventListener('popstate', () => {
  const mark = markNow();
  if (stepping) {
    stepping = false;
    const after = next;
    then(null);
    if (after) move(after.to, after.replace);
    markSheets();
    return;
  }
  if (sheets.length) {
    sheets.pop()?.();
    // What lay below it is closed by the next step, if this was one step.
    if (mark.at === at) markSheets();
    else closeSheets();
  } else if (mark.sheet) {
    // Forward again to where a sheet was: there is nothing any more.
    history.back();
    return;
  }
  // An address typed by hand has no mark: it lies above where we were.
  if (mark.at === undefined) {
    at++;
    trail.length = at;
    history.replaceState({ at } satisfies Mark, '');
  } else at = mark.at;
  settle();
  const there = parseRoute(location.hash);
  if (hrefOf(there) !== hrefOf(route.peek())) route.value = there;
});

/** The places that the bar below leads to: one entry each, however often they are gone to. */
const isRoot = (to: Route): boolean => to.name === 'inbox' || to.name === 'gateway' || to.name === 'settings' || (to.name === 'files' && !to.path && !to.session);

/**
 * Goes there; `replace` leaves no step in the history. Where the place lies right below (its parent, the list one
 * came from), or is one of the main places that lies somewhere below, this is a way back and not a new step.
 */
export function go(to: Route, replace = false): void {
  const over = sheets.length > 0;
  if (!stepping && hrefOf(to) === here()) return;
  closeSheets();
  if (over && !replace && !stepping) {
    // The entry of an open sheet becomes the entry of the place.
    at++;
    trail.length = at;
    history.replaceState({ at } satisfies Mark, '', hrefOf(to));
    settle();
    route.value = to;
  } else if (over || stepping) {
    then({ to, replace });
    route.value = to;
    stepBack();
  } else move(to, replace);
}

/** Goes there from an entry that is no sheet's. */
function move(to: Route, replace: boolean): void {
  const href = hrefOf(to);
  route.value = to;
  if (href === here()) return;
  const below = replace ? -1 : trail.slice(0, at).lastIndexOf(href);
  if (below >= 0 && (below === at - 1 || isRoot(to))) {
    history.go(below - at);
    return;
  }
  if (replace) history.replaceState({ at } satisfies Mark, '', href);
  else {
    at++;
    trail.length = at;
    history.pushState({ at } satisfies Mark, '', href);
  }
  settle();
}

/** One step back, or to `fallback` when the console was opened right here. */
export function back(fallback: Route = { name: 'inbox' }): void {
  if (at > 0) history.back();
  else go(fallback, true);
}

/** Open sheets have an entry of the history: the way back closes them first. */
function markSheets(): void {
  if (sheets.length && !markNow().sheet) history.pushState({ at, sheet: true } satisfies Mark, '');
}

/** Whoever goes elsewhere leaves them behind. */
function closeSheets(): void {
  const open = sheets;
  sheets = [];
  for (const close of open) close();
}

/** A sheet opened. */
export function sheetOpened(close: () => void): void {
  sheets.push(close);
  // While a step back is under way the entry is the one that it leaves.
  if (!stepping) markSheets();
}

/** A sheet closed by itself: the last one's step goes too, unless another sheet takes its place at once. */
export function sheetClosed(close: () => void): void {
  if (!sheets.includes(close)) return;
  sheets = sheets.filter((one) => one !== close);
  queueMicrotask(() => {
    if (!sheets.length && markNow().sheet) stepBack();
  });
}

/** Links within the console go through `go`, so that they keep to one entry a place. */
export function followLinks(): void {
  addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest('a[href^="#/"]') : null;
    if (!link || link.hasAttribute('target')) return;
    event.preventDefault();
    go(parseRoute(link.getAttribute('href') ?? ''));
  });
}
