//! Where the user is, in the fragment of the address: the document itself never changes, so relative URLs and
//! any path prefix keep working, and nothing of it is sent to a server.

import { signal } from '@preact/signals';

export type Route =
  | { name: 'inbox' }
  | { name: 'new' }
  | { name: 'session'; machine: string; id: string }
  | { name: 'history'; machine: string; agent: string; project: string; id: string }
  | { name: 'files'; machine: string; path: string; session: string }
  | { name: 'settings' };

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
      return { name: 'history', machine: parts[1] ?? '', agent: parts[2] ?? '', project: extra.get('project') ?? '', id: parts[3] ?? '' };
    case 'files':
      return { name: 'files', machine: parts[1] ?? '', path: extra.get('path') ?? '', session: extra.get('session') ?? '' };
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
    case 'history': {
      const parts = [route.machine, route.agent, route.id].map(e).join('/').replace(/\/+$/, '');
      return `#/history/${parts}${route.project ? `?project=${e(route.project)}` : ''}`;
    }
    case 'files': {
      const query = new URLSearchParams();
      if (route.path) query.set('path', route.path);
      if (route.session) query.set('session', route.session);
      return `#/files/${e(route.machine)}${query.size ? `?${query}` : ''}`;
    }
  }
}

export const route = signal<Route>(parseRoute(location.hash));
/** How many steps back stay within the console. */
let depth = 0;

addEventListener('hashchange', () => {
  route.value = parseRoute(location.hash);
});

/** Goes there; `replace` leaves no step in the history. */
export function go(to: Route, replace = false): void {
  const href = hrefOf(to);
  if (href === location.hash) return;
  if (replace) {
    history.replaceState(history.state, '', href);
    route.value = to;
  } else {
    depth++;
    location.hash = href;
  }
}

/** One step back, or to `fallback` when the console was opened right here. */
export function back(fallback: Route = { name: 'inbox' }): void {
  if (depth > 0) {
    depth--;
    history.back();
  } else go(fallback, true);
}
