//! The order of the inbox: what needs a person first. Pure.

import type { Session } from '../net/types';

export type Group = 'needs' | 'running' | 'unread' | 'recent';

/** What this device has seen: the highest sequence number by session, and when it first looked. */
export interface Seen { baseline: number; seqs: Record<string, number> }

/** Is there something in this session that nobody looked at on this device? */
export function isUnread(session: Session, seen: Seen): boolean {
  const seq = seen.seqs[session.id];
  if (seq !== undefined) return session.last_seq > seq;
  return Date.parse(session.updated_at) > seen.baseline;
}

/** Which part of the inbox a session belongs to. A failure that was looked at needs nobody any more. */
export function groupOf(session: Session, seen: Seen): Group {
  if (session.pending_approvals > 0) return 'needs';
  if (session.status === 'failed' && isUnread(session, seen)) return 'needs';
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
  const text = `${session.title ?? ''} ${session.first_message ?? ''} ${session.project_path} ${session.executor}`.toLowerCase();
  return query.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}
