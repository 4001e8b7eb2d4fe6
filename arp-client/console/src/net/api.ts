//! Requests to an edge: one function that knows headers, limits of time and errors. May touch the network.

import type { Machine } from './machine';

/** Longest wait for an answer, in milliseconds. */
const TIMEOUT = 20_000;

/** A request that did not succeed. `status` 0: nothing came back (offline, or time ran out). */
export class ApiError extends Error {
  constructor(readonly status: number, readonly code: string, message: string) {
    super(message);
    this.name = 'ApiError';
  }
}

/** The absolute URL of an API path (`api/sessions`) at a machine. */
export function urlOf(machine: Machine, path: string): URL {
  return new URL(path, machine.base);
}

/**
 * The same for a WebSocket, which cannot send headers: the token goes into the path and the machine's public name
 * into the query. The relay takes the token out; one that it does not know is refused, whatever the cookie says.
 */
export function socketUrl(machine: Machine, path: string): string {
  const url = urlOf(machine, machine.token ? `t/${encodeURIComponent(machine.token)}/${path}` : path);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  if (machine.edge) url.searchParams.set('edge_id', machine.edge);
  return url.href;
}

/** Headers that say who we are to the relay, and which machine is meant to the edge. */
export function headersOf(machine: Machine, more: Record<string, string> = {}): Record<string, string> {
  return { ...more, ...(machine.token ? { 'X-ARP-Token': machine.token } : {}), ...(machine.edge ? { 'X-ARP-Edge': machine.edge } : {}) };
}

/** Asks `path` of a machine and gives back the JSON of the answer. Throws `ApiError` and nothing else. */
export async function call<T>(machine: Machine, method: string, path: string, body?: unknown, timeout = TIMEOUT): Promise<T> {
  // Another machine answers at this address: nothing is asked of it but who it is until the user has seen that.
  if (machine.held && path !== 'api/info') throw new ApiError(409, 'other_edge', '');
  const headers = headersOf(machine, { Accept: 'application/json' });
  const init: RequestInit = { method, headers, cache: 'no-store', signal: AbortSignal.timeout(timeout) };
  if (body !== undefined) {
    headers['Content-Type'] = 'application/json';
    init.body = JSON.stringify(body);
  }
  let response: Response;
  let text: string;
  try {
    response = await fetch(urlOf(machine, path), init);
    text = await response.text();
  } catch {
    throw new ApiError(0, 'unreachable', '');
  }
  let answer: unknown = null;
  try {
    answer = JSON.parse(text);
  } catch {
    // Not JSON: a page of the relay or of something in between. Its status tells enough.
  }
  if (!response.ok) {
    const told = (answer ?? {}) as { code?: unknown; message?: unknown };
    throw new ApiError(
      response.status,
      typeof told.code === 'string' ? told.code : `http_${response.status}`,
      typeof told.message === 'string' ? told.message : '',
    );
  }
  if (answer === null) throw new ApiError(response.status, 'not_json', '');
  return answer as T;
}

/** Makes a string safe as one segment of a path. */
export const seg = encodeURIComponent;

/** An id that makes a repeated request harmless. Works without a secure context, where randomUUID is missing. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `c-${[...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
