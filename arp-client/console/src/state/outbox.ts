//! Messages that were written and are not with their machine yet. Kept on this device, over reloads, and sent by
//! themselves when the machine can be reached: each exactly once, because its id goes with it however often it is
//! sent, and in the order in which they were written.

import { effect, signal } from '@preact/signals';
import { ApiError, call, newId, seg } from '../net/api';
import type { Queued } from '../net/types';
import { explain } from '../i18n';
import { roomOf, rooms, type Room } from './machines';

/** `waiting`: to be sent when that is possible. `sent`: the machine has it, its log does not show it yet. */
export type LetterState = 'waiting' | 'sending' | 'sent' | 'failed';

export interface Letter {
  /** Id of the machine; of the session there. */
  machine: string;
  session: string;
  clientId: string;
  text: string;
  state: LetterState;
  error: string;
  /** Code of the refusal. */
  code?: string | undefined;
}

const KEY = 'arp.outbox';
/** Pauses between attempts while the machine seems to be there, in milliseconds. */
const FIRST_PAUSE = 1_500;
const LONGEST_PAUSE = 30_000;

function load(): Letter[] {
  try {
    const list: unknown = JSON.parse(localStorage.getItem(KEY) ?? '[]');
    if (!Array.isArray(list)) return [];
    const text = (value: unknown): value is string => typeof value === 'string' && value !== '';
    return list
      .filter((one: Partial<Letter>) => text(one.machine) && text(one.session) && text(one.clientId) && text(one.text))
      .map((one: Letter) => ({ ...one, state: one.state === 'failed' ? 'failed' : 'waiting', error: String(one.error ?? '') }));
  } catch {
    return [];
  }
}

/** All letters of this device, oldest first. */
export const outbox = signal<readonly Letter[]>(load());

effect(() => {
  const kept = outbox.value.filter(({ state }) => state !== 'sent');
  try {
    if (kept.length) localStorage.setItem(KEY, JSON.stringify(kept));
    else localStorage.removeItem(KEY);
  } catch {
    // Storage may be full or forbidden; letters then live as long as this page.
  }
});

// Another tab wrote or sent something. What this one is sending stays its own.
addEventListener('storage', (event) => {
  if (event.key !== KEY) return;
  const theirs = load();
  const mine = outbox.peek();
  const ids = new Set(theirs.map(({ clientId }) => clientId));
  const known = new Set(mine.map(({ clientId }) => clientId));
  // It may be the other tab that knows by now whose machine it is.
  const meant = new Map(theirs.map(({ clientId, machine }) => [clientId, machine]));
  outbox.value = byEdge([
    ...mine.filter(({ clientId, state }) => ids.has(clientId) || state === 'sending' || state === 'sent').map((one) => ({ ...one, machine: meant.get(one.clientId) ?? one.machine })),
    ...theirs.filter(({ clientId }) => !known.has(clientId)),
  ]);
  for (const room of rooms.peek()) void flush(room);
});

/**
 * Letters with their machines called as every page calls them, and this one after a reload: by the edge. Before that is
 * known, a machine is called by the way that leads there, which another tab need not have.
 */
function byEdge(letters: readonly Letter[]): Letter[] {
  const known = rooms.peek().filter(({ machine }) => machine.edge);
  return letters.map((one) => {
    const id = known.find((room) => room.is(one.machine))?.machine.id ?? one.machine;
    return id === one.machine ? one : { ...one, machine: id };
  });
}

const set = (clientId: string, state: LetterState, error = '', code?: string): void => {
  outbox.value = outbox.peek().map((one) => (one.clientId === clientId ? { ...one, state, error, code } : one));
};

/** Forgets letters. */
export function drop(clientIds: ReadonlySet<string>): void {
  if (outbox.peek().some(({ clientId }) => clientIds.has(clientId))) outbox.value = outbox.peek().filter(({ clientId }) => !clientIds.has(clientId));
}

/** Letters to a session. */
export const lettersOf = (room: Room, session: string): Letter[] =>
  outbox.value.filter((one) => one.session === session && room.is(one.machine));

/** Can it go through later, as it is? Then it waits; else its writer has to look. */
function passes(error: unknown): boolean {
  if (!(error instanceof ApiError)) return false;
  if (error.status === 0 || error.status >= 500 || error.status === 429 || error.status === 408) return true;
  // The wrong machine answers, it wants its key, or the relay does not know the token at the moment.
  return ['other_edge', 'edge_key_required', 'edge_key_wrong', 'unknown_token', 'token_required'].includes(error.code);
}

const busy = new Set<string>();
const pauses = new Map<string, { timer: ReturnType<typeof setTimeout>; length: number }>();

/** Letters that may stop the running turn. That is meant for their moment, and forgotten if they cannot go out then. */
const urgent = new Set<string>();

/** Sends what waits for the sessions of a machine, those of one session one after the other. */
export async function flush(room: Room): Promise<void> {
  const waits = outbox.peek().filter((one) => roomOf(one.machine) === room);
  await Promise.all([...new Set(waits.map(({ session }) => session))].map((session) => flushSession(room, session)));
}

async function flushSession(room: Room, session: string): Promise<void> {
  const key = `${room.key} ${session}`;
  if (busy.has(key)) return;
  busy.add(key);
  try {
    for (;;) {
      const mine = outbox.peek().filter((one) => one.session === session && roomOf(one.machine) === room);
      const next = mine.find(({ state }) => state === 'waiting');
      // One that is on its way by another room, which turned out to be this one's machine, is first.
      if (!next || room.stranger.peek() || mine.some(({ state }) => state === 'sending')) return;
      set(next.clientId, 'sending');
      try {
        const answer = await call<{ message: Queued & { status: string } }>(room.machine, 'POST', `api/sessions/${seg(session)}/messages`, {
          text: next.text, client_id: next.clientId, interrupt: urgent.delete(next.clientId),
        });
        // A queued one is in the session's queue; a sent one comes back in the log.
        if (answer.message.status === 'queued') drop(new Set([next.clientId]));
        else set(next.clientId, 'sent');
        clearTimeout(pauses.get(key)?.timer);
        pauses.delete(key);
      } catch (error) {
        if (!passes(error)) {
          set(next.clientId, 'failed', explain(error), error instanceof ApiError ? error.code : undefined);
          continue;
        }
        set(next.clientId, 'waiting');
        const length = Math.min(LONGEST_PAUSE, (pauses.get(key)?.length ?? FIRST_PAUSE / 2) * 2);
        clearTimeout(pauses.get(key)?.timer);
        pauses.set(key, { length, timer: setTimeout(() => void flushSession(room, session), length) });
        return;
      }
    }
  } finally {
    busy.delete(key);
    // What is left may be another room's by now.
    for (const heir of new Set(outbox.peek().map(({ machine }) => roomOf(machine)))) if (heir && heir !== room && !rooms.peek().includes(room)) void flush(heir);
  }
}

/** Writes a letter and sends it as soon as that is possible. */
export function post(room: Room, session: string, text: string, interrupt = false): void {
  const letter: Letter = { machine: room.machine.id, session, clientId: newId(), text, state: 'waiting', error: '' };
  if (interrupt) urgent.add(letter.clientId);
  outbox.value = [...outbox.peek(), letter];
  void flush(room);
}

/** Tries a letter again that was refused. */
export function again(room: Room, clientId: string): void {
  set(clientId, 'waiting');
  void flush(room);
}

/** Sends what waits whenever a machine comes within reach. */
export function watchOutbox(): void {
  effect(() => {
    rooms.value;
    const letters = outbox.peek();
    const renamed = byEdge(letters);
    if (renamed.some((one, index) => one !== letters[index])) outbox.value = renamed;
  });
  effect(() => {
    for (const room of rooms.value) if (room.link.status.value.state === 'live') queueMicrotask(() => void flush(room));
  });
  addEventListener('online', () => rooms.peek().forEach((room) => void flush(room)));
}
