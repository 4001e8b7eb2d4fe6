//! The order of the inbox: what needs a person first. Pure.

import type { Session } from '../net/types';

export type Group = 'needs' | 'running' | 'unread' | 'recent';

/**
 * What was looked at of a session: its events up to `seq`, when `turns` turns had begun, and whether one ran then.
 * A bare number is what older consoles kept: only `seq`.
 */
export interface Mark { seq: number; turns: number; ran: boolean }

/** What this device has seen, by session, and when it first looked. */
export interface Seen { baseline: number; seqs: Record<string, Mark | number> }

/** What there is to be seen of a session now. */
export const markOf = (session: Session, seq = session.last_seq): Mark => ({ seq, turns: session.turns, ran: session.turn !== null });

/**
 * Is there something in this session that nobody looked at on this device? A session that was only parked, resumed or
 * renamed since says nothing new: turns do.
 */
export function isUnread(session: Session, seen: Seen): boolean {
  const mark = seen.seqs[session.id];
  if (mark === undefined) return Date.parse(session.updated_at) > seen.baseline;
  if (typeof mark === 'number') return session.last_seq > mark && session.status !== 'parked';
  return session.last_seq > mark.seq && (session.turns > mark.turns || mark.ran || session.turn !== null || session.status === 'failed' || Boolean(session.problem));
}

/** Which part of the inbox a session belongs to. What went wrong and was looked at needs nobody any more. */
export function groupOf(session: Session, seen: Seen): Group {
  if (session.pending_approvals > 0) return 'needs';
  if ((session.status === 'failed' || session.problem?.can_retry) && isUnread(session, seen)) return 'needs';
  if (session.status === 'running' || session.status === 'starting' || session.status === 'waiting') return 'running';
  return isUnread(session, seen) ? 'unread' : 'recent';
}

const ORDER: Group[] = ['needs', 'running', 'unread', 'recent'];

/** Groups and sorts: newest first, within "needs you" those that wait longest first. */
export function arrange<T extends { session: Session }>(rows: readonly T[], seen: Seen): { group: Group; rows: T[] }[] {
  const groups = new Map<Group, T[]>(ORDER.map((group) => [group, []]));
  for (const row of rows) groups.get(groupOf(row.session, seen))?.push(row);
  const time = (row: T): number => Date.parse(row.session.updated_at) || 0;
  const asked = (row: T): number => Date.parse(row.session.approvals[0]?.created_at ?? row.session.updated_at) || 0;
  const began = (row: T): number => Date.parse(row.session.turn?.started_at ?? row.session.created_at) || 0;
  return ORDER.flatMap((group) => {
    const list = groups.get(group) ?? [];
    if (group === 'needs') list.sort((a, b) => Number(b.session.pending_approvals > 0) - Number(a.session.pending_approvals > 0) || asked(a) - asked(b));
    // Running ones keep their place while they speak: sorted by when the turn began.
    else if (group === 'running') list.sort((a, b) => began(b) - began(a));
    else list.sort((a, b) => time(b) - time(a));
    return list.length ? [{ group, rows: list }] : [];
  });
}

/** Does a session match what was typed into the search? All words must occur somewhere. */
export function matches(session: Session, query: string): boolean {
  return holds(session, query);
}

/** The same for anything that has a title, a first message and a directory. */
export function holds(one: { title?: string | null; first_message: string | null; project_path: string }, query: string): boolean {
  const text = `${one.title ?? ''} ${one.first_message ?? ''} ${one.project_path}`.toLowerCase();
  return query.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}
