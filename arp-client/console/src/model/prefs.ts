//! What this device remembers: theme, language, drafts, what was seen. Signals that write themselves to
//! localStorage; where storage is forbidden they live as long as the page.

import { effect, signal, type Signal } from '@preact/signals';
import type { Session } from '../net/types';
import { markOf, type Mark, type Seen } from './inbox';

function stored<T>(key: string, initial: T, valid: (value: unknown) => value is T): Signal<T> {
  let first = initial;
  try {
    const value: unknown = JSON.parse(localStorage.getItem(key) ?? 'null');
    if (valid(value)) first = value;
  } catch {
    // Broken or forbidden: begin with the default.
  }
  const kept = signal(first);
  effect(() => {
    try {
      localStorage.setItem(key, JSON.stringify(kept.value));
    } catch {
      // Full or forbidden.
    }
  });
  return kept;
}

const isOneOf = <T extends string>(...list: T[]) => (value: unknown): value is T => list.includes(value as T);
const isRecord = (value: unknown): value is Record<string, never> => typeof value === 'object' && value !== null && !Array.isArray(value);

export type Theme = 'auto' | 'light' | 'dark';
export type LangChoice = 'auto' | 'en' | 'zh';

export const theme = stored<Theme>('arp.theme', 'auto', isOneOf('auto', 'light', 'dark'));
export const langChoice = stored<LangChoice>('arp.lang', 'auto', isOneOf('auto', 'en', 'zh'));
export const notify = stored<'on' | 'off'>('arp.notify', 'off', isOneOf('on', 'off'));

/** Unsent text by session id (`new` for a new session). */
export const drafts = stored<Record<string, string>>('arp.drafts', {}, isRecord);

/** What was looked at; the baseline is the first visit, so that a new device does not begin with all unread. */
export const seen = stored<Seen>('arp.seen', { baseline: Date.now(), seqs: {} }, (value): value is Seen =>
  isRecord(value) && typeof (value as unknown as Seen).baseline === 'number' && isRecord((value as unknown as Seen).seqs));

// Another tab of this device looked at something: what either has seen is seen.
addEventListener('storage', (event) => {
  if (event.key !== 'arp.seen' || !event.newValue) return;
  try {
    const other = JSON.parse(event.newValue) as Seen;
    const mine = seen.peek();
    const news = Object.entries(other.seqs).filter(([id, mark]) => seqOf(mark) > seqOf(mine.seqs[id]));
    if (news.length) seen.value = { baseline: Math.min(mine.baseline, other.baseline), seqs: { ...mine.seqs, ...Object.fromEntries(news) } };
  } catch {
    // Not ours to read.
  }
});

/** New addresses of machines that were told and put away, by the machine's id. */
export const knownAddresses = stored<Record<string, string>>('arp.addresses', {}, isRecord);

/** The last choices made for a new session; the path is one of that machine. */
export interface LastChoice { machine?: string; executor?: string; path?: string; mode?: string; model?: string }
export const lastChoice = stored<LastChoice>('arp.last', {}, isRecord as (value: unknown) => value is LastChoice);

/** How many sessions are remembered as seen, and drafts kept. */
const KEEP = 500;

const seqOf = (mark: Mark | number | undefined): number => (typeof mark === 'object' ? mark.seq : (mark ?? -1));

function mark(marks: readonly (readonly [string, Mark])[]): void {
  const { baseline, seqs } = seen.peek();
  const ids = new Set(marks.map(([id]) => id));
  const rest = Object.entries(seqs).filter(([id]) => !ids.has(id));
  seen.value = { baseline, seqs: Object.fromEntries([...rest, ...marks].slice(-KEEP)) };
}

/** Notes that a session was looked at up to `seq`. */
export function markSeen(session: Session, seq: number): void {
  const old = seen.peek().seqs[session.id];
  const next = markOf(session, Math.max(seq, seqOf(old)));
  if (typeof old === 'object' && old.seq === next.seq && old.turns === next.turns && old.ran === next.ran) return;
  mark([[session.id, next]]);
}

/** Notes sessions that rested before this device first looked, so that what moves them later can be told from news. */
export function noteBaseline(sessions: readonly Session[]): void {
  const { baseline, seqs } = seen.peek();
  const marks = sessions
    .filter((session) => seqs[session.id] === undefined && Date.parse(session.updated_at) <= baseline)
    .map((session) => [session.id, markOf(session)] as const);
  if (marks.length) mark(marks);
}

/** Keeps unsent text; empty text is forgotten. */
export function setDraft(id: string, text: string): void {
  const { [id]: _, ...rest } = drafts.peek();
  drafts.value = text ? Object.fromEntries([...Object.entries(rest).slice(-KEEP / 10), [id, text.slice(0, 20_000)]]) : rest;
}
