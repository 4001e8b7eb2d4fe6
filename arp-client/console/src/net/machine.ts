//! Machines: where an edge is reached and with which token. Reads and writes the address bar, sessionStorage
//! (this tab's own token) and localStorage (the list). Knows nothing of what is asked there.

/** One edge. `base` ends with a slash; every path of the API is relative to it. */
export interface Machine {
  /** Made from the edge's public name, where it is known, else the same as `alias`. */
  id: string;
  /** Made from base and token; says nothing of the token itself. */
  alias: string;
  /** How it is called; `given` by the user, or what the machine called itself. */
  name: string;
  given?: boolean;
  base: string;
  token: string | null;
  /** The edge's public name (`edge_id` of `/api/info`): whom this address is known to lead to. */
  edge: string | null;
  /** Another edge answers here, and the user has not said that this is right. */
  held?: boolean;
}

const LIST = 'arp.machines';
const TAB = 'arp.token';
const EDGE = 'arp.edge';
const IDS = 'arp.ids';

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
  const token = tokenOf(url.search);
  if (token === '') return null;
  const directory = url.pathname.replace(/[^/]*$/, '');
  const path = /\/t\/[^/]+$/.test(url.pathname) ? `${url.pathname}/` : directory;
  return { ...machineOf(`${url.origin}${path}`, token, name), ...(name ? { given: true } : {}) };
}

/** The id of the machine with this public name. */
export const idOfEdge = (edge: string): string => fingerprint(`edge ${edge}`);

/** A machine by its parts. */
export function machineOf(base: string, token: string | null, name = '', edge: string | null = null): Machine {
  const alias = fingerprint(`${base} ${token ?? ''}`);
  return { id: edge ? idOfEdge(edge) : alias, alias, base, token, edge, name: name || new URL(base).hostname };
}

/** The token in a page's own address, if there is one: `arp_token=`, or `token=` as people type it. */
export function tokenOf(search: string): string | null {
  const query = new URLSearchParams(search);
  const strict = query.get('arp_token');
  if (strict !== null) return strict;
  const given = query.get('token');
  return given === null ? null : (given.split('/')[0] ?? '');
}

/** `address` without (or with) its token parameter, in the form that never means anything else; the rest stays. */
export function withToken(address: string, token: string | null): string {
  const url = new URL(address);
  url.searchParams.delete('token');
  url.searchParams.delete('arp_token');
  if (token !== null) url.searchParams.set('arp_token', token);
  return url.href;
}

/** Where this tab keeps what it knows of the page's own machine. */
const tabKey = (base: string, what: string): string => `${what} ${new URL(base).pathname}`;

/**
 * Finds out which machine this page belongs to, keeps its token for this tab and takes it out of the address
 * bar. A tab that was reloaded knows its token from sessionStorage, so two tabs on one origin do not mix.
 */
export function ownMachine(): Machine {
  const base = new URL('./', document.baseURI);
  base.search = '';
  base.hash = '';
  const shown = tokenOf(location.search);
  if (shown) {
    sessionStorage.setItem(tabKey(base.href, TAB), shown);
    sessionStorage.removeItem(tabKey(base.href, EDGE));
    sessionStorage.removeItem(tabKey(base.href, IDS));
    history.replaceState(history.state, '', withToken(location.href, null));
  }
  const token = shown || sessionStorage.getItem(tabKey(base.href, TAB));
  return machineOf(base.href, token, '', token ? null : sessionStorage.getItem(tabKey(base.href, EDGE)));
}

/** Keeps for this tab whom its own address leads to, by which token, and by which `ids` its links call it. */
export function keepForTab(machine: Machine, ids: readonly string[]): void {
  if (machine.edge) sessionStorage.setItem(tabKey(machine.base, EDGE), machine.edge);
  if (machine.token) sessionStorage.setItem(tabKey(machine.base, TAB), machine.token);
  sessionStorage.setItem(tabKey(machine.base, IDS), [...new Set(ids)].join(' '));
}

/** The ids by which this tab's links call its own machine. */
export const idsOfTab = (base: string): string[] => (sessionStorage.getItem(tabKey(base, IDS)) ?? '').split(' ').filter(Boolean);

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
      const text = (value: unknown): string => (typeof value === 'string' ? value : '');
      const made = machineOf(entry.base, text(entry.token) || null, text(entry.name), text(entry.edge) || null);
      return [{ ...made, ...(entry.given === undefined ? {} : { given: entry.given === true }) }];
    });
  } catch {
    return [];
  }
}

/** Keeps the list on this device. */
export function saveMachines(machines: Machine[]): void {
  try {
    localStorage.setItem(LIST, JSON.stringify(machines.map(({ name, given, base, token, edge }) => ({ name, given, base, token, edge }))));
  } catch {
    // Storage may be full or forbidden; the list then lives as long as this page.
  }
}
