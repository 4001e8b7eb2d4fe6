//! Machines: where an edge is reached and with which token. Reads and writes the address bar, sessionStorage
//! (this tab's own token) and localStorage (the list). Knows nothing of what is asked there.

/** One edge. `base` ends with a slash; every path of the API is relative to it. */
export interface Machine {
  /** Made from base and token; says nothing of the token itself. */
  id: string;
  name: string;
  base: string;
  token: string | null;
}

const LIST = 'arp.machines';
const TAB = 'arp.token';

/** A short name of `text` that cannot be turned back (FNV-1a, twice), for ids that may show up in logs. */
export function fingerprint(text: string): string {
  let a = 0x811c9dc5;
  let b = 0x1b873593;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    a = Math.imul(a ^ code, 0x01000193);
    b = Math.imul(b ^ code, 0x85ebca6b) + i;
  }
  return ((a >>> 0).toString(36) + (b >>> 0).toString(36)).padEnd(12, '0').slice(0, 12);
}

/** Builds a machine from an address that holds the token in one of its forms, or null if it is none. */
export function parseAddress(text: string, name = ''): Machine | null {
  let url: URL;
  try {
    url = new URL(text.trim());
  } catch {
    return null;
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return null;
  const given = url.searchParams.get('token');
  const token = given === null ? null : (given.split('/')[0] ?? '');
  if (token === '') return null;
  const directory = url.pathname.replace(/[^/]*$/, '');
  const path = /\/t\/[^/]+$/.test(url.pathname) ? `${url.pathname}/` : directory;
  return machineOf(`${url.origin}${path}`, token, name);
}

/** A machine by its parts. */
export function machineOf(base: string, token: string | null, name = ''): Machine {
  return { id: fingerprint(`${base} ${token ?? ''}`), base, token, name: name || new URL(base).hostname };
}

/** The token in a page's own address, if there is one. */
export function tokenOf(search: string): string | null {
  const given = new URLSearchParams(search).get('token');
  return given ? (given.split('/')[0] ?? null) : null;
}

/** `address` without (or with) its token parameter; everything else stays. */
export function withToken(address: string, token: string | null): string {
  const url = new URL(address);
  url.searchParams.delete('token');
  if (token !== null) url.searchParams.set('token', token);
  return url.href;
}

/**
 * Finds out which machine this page belongs to, keeps its token for this tab and takes it out of the address
 * bar. A tab that was reloaded knows its token from sessionStorage, so two tabs on one origin do not mix.
 */
export function ownMachine(): Machine {
  const base = new URL('./', document.baseURI);
  base.search = '';
  base.hash = '';
  const key = `${TAB} ${base.pathname}`;
  const shown = tokenOf(location.search);
  if (shown) {
    sessionStorage.setItem(key, shown);
    history.replaceState(history.state, '', withToken(location.href, null));
  }
  return machineOf(base.href, shown ?? sessionStorage.getItem(key));
}

/**
 * A reload sends only the cookie. While that leads to another machine (another tab changed it), the token is
 * put back into the address bar so that a reload comes back here.
 */
export function showToken(machine: Machine, show: boolean): void {
  if (!machine.token) return;
  const wanted = withToken(location.href, show ? machine.token : null);
  if (wanted !== location.href) history.replaceState(history.state, '', wanted);
}

/** The machines kept on this device. What cannot be read is left out. */
export function loadMachines(): Machine[] {
  try {
    const list: unknown = JSON.parse(localStorage.getItem(LIST) ?? '[]');
    if (!Array.isArray(list)) return [];
    return list.flatMap((entry: Partial<Machine>) => {
      if (typeof entry.base !== 'string' || !/^https?:\/\//.test(entry.base)) return [];
      const token = typeof entry.token === 'string' ? entry.token : null;
      return [machineOf(entry.base, token, typeof entry.name === 'string' ? entry.name : '')];
    });
  } catch {
    return [];
  }
}

/** Keeps the list on this device. */
export function saveMachines(machines: Machine[]): void {
  try {
    localStorage.setItem(LIST, JSON.stringify(machines.map(({ name, base, token }) => ({ name, base, token }))));
  } catch {
    // Storage may be full or forbidden; the list then lives as long as this page.
  }
}
