//! The one list of sessions: what runs and rested here, and what only the agents' own histories know, page by page
//! from each machine, with words to search for and filters that the machines apply.

import { computed, effect, signal } from '@preact/signals';
import { ApiError, call } from '../net/api';
import { timeOf, type Overview, type PastSession, type Session } from '../net/types';
import { arrange, holds, matches, type Group } from '../model/inbox';
import { seen } from '../model/prefs';
import { rooms, type Room } from './machines';

const PAGE = 50;
/** What is typed is searched for after this pause, in milliseconds. */
const TYPING = 220;

/** A session that only an agent's history knows. */
export interface PastLine { room: Room; executor: string; past: PastSession }
export interface LiveLine { room: Room; session: Session }
export type Line = LiveLine | PastLine;

export const isPast = (line: Line): line is PastLine => 'past' in line;
export const timeOfLine = (line: Line): number =>
  isPast(line) ? timeOf(line.past.updated_at ?? line.past.message_timestamp ?? line.past.created_at) : Date.parse(line.session.updated_at) || 0;

/** What is looked for. */
export const query = signal('');
export interface Filter { executor: string; project: string; live: boolean }
export const filter = signal<Filter>({ executor: '', project: '', live: false });

/** One machine's pages for what is looked for. */
interface Pages { room: Room; past: PastSession[]; executors: Map<string, string>; next: string | null | undefined; total: number; busy: boolean; failed: boolean }

const pages = signal<ReadonlyMap<Room, Pages>>(new Map());
/** What the pages were asked for; a late answer to something else is dropped. */
let round = 0;
/** Machines whose pages are of an earlier question. */
let stale = new Set<Room>();

const isLive = (session: Session): boolean => ['starting', 'running', 'waiting', 'idle'].includes(session.status);

function put(page: Pages): void {
  pages.value = new Map([...pages.peek(), [page.room, page]]);
}

async function fetchPage(room: Room): Promise<void> {
  const old = pages.peek().get(room);
  if (old?.busy || old?.next === null) return;
  const mine = round;
  const page: Pages = old ?? { room, past: [], executors: new Map(), next: undefined, total: 0, busy: false, failed: false };
  put({ ...page, busy: true });
  const { executor, project } = filter.peek();
  const asked = new URLSearchParams({ limit: String(PAGE) });
  if (page.next) asked.set('before', page.next);
  if (query.peek().trim()) asked.set('q', query.peek().trim());
  if (executor) asked.set('executor', executor);
  if (project) asked.set('project_path', project);
  try {
    const answer = await call<Overview>(room.machine, 'GET', `api/overview?${asked}`);
    if (mine !== round) return;
    const kept = stale.delete(room) ? [] : page.past;
    const known = new Set(kept.map(({ id }) => id));
    const executors = new Map(page.executors);
    const past = [...kept];
    for (const entry of answer.entries) {
      if (entry.kind === 'session') room.put(entry.session);
      else {
        if (!known.has(entry.session.id)) past.push(entry.session);
        executors.set(entry.session.id, entry.executor);
      }
    }
    put({ room, past, executors, next: answer.next, total: answer.total, busy: false, failed: false });
  } catch (error) {
    if (mine !== round) return;
    // An edge that does not know this list has only its live one.
    const never = error instanceof ApiError && error.status === 404;
    put({ ...page, busy: false, failed: !never, next: never ? null : page.next });
  }
}

/** Reads the next page of every machine that has more. */
export function loadMore(): void {
  for (const room of rooms.peek()) if (room.ready.peek()) void fetchPage(room);
}

export const hasMore = computed(() => rooms.value.some((room) => room.ready.value && pages.value.get(room)?.next !== null));
export const loadingMore = computed(() => [...pages.value.values()].some(({ busy }) => busy));
export const loadFailed = computed(() => [...pages.value.values()].some(({ failed }) => failed));

/** Forgets a session of a history that was deleted. */
export function forgetPast(room: Room, id: string): void {
  const page = pages.peek().get(room);
  if (page) put({ ...page, past: page.past.filter((one) => one.id !== id) });
}

/** A session of a history, if its page was read. */
export const findPast = (room: Room, id: string): PastSession | undefined => pages.value.get(room)?.past.find((one) => one.id === id);

/** Every session of every machine that is known so far. */
export const allLines = computed<LiveLine[]>(() => rooms.value.flatMap((room) => [...room.sessions.value.values()].map((session) => ({ room, session }))));

/** Is anything looked for? */
export const isFiltered = computed(() => Boolean(query.value.trim() || filter.value.executor || filter.value.project || filter.value.live));

function wanted({ session }: LiveLine): boolean {
  const { executor, project, live } = filter.value;
  const words = query.value.trim();
  return (!executor || session.executor === executor) && (!project || session.project_path === project) && (!live || isLive(session)) && (!words || matches(session, words));
}

export const pastLines = computed<PastLine[]>(() => {
  if (filter.value.live) return [];
  return rooms.value.flatMap((room) => {
    const page = pages.value.get(room);
    if (!page || room.stranger.value) return [];
    const covered = new Set([...room.sessions.value.values()].map((session) => session.agent_session_id));
    const words = query.value.trim();
    const { executor, project } = filter.value;
    // What an earlier question brought is narrowed at once; the machine's answer adds what is missing.
    const fits = (past: PastSession): boolean =>
      !covered.has(past.id) && (!words || holds(past, words)) && (!executor || page.executors.get(past.id) === executor) && (!project || past.project_path === project);
    return page.past.filter(fits).map((past) => ({ room, past, executor: page.executors.get(past.id) ?? '' }));
  });
});

export interface Section { group: Group; lines: Line[] }

/** What the list shows, in its order: what needs somebody, what runs, what is new, then all else by time. */
export const sections = computed<Section[]>(() => {
  const groups = arrange(allLines.value.filter(wanted), seen.value);
  const made: Section[] = groups.filter(({ group }) => group !== 'recent').map(({ group, rows }) => ({ group, lines: rows }));
  const rest: Line[] = [...(groups.find(({ group }) => group === 'recent')?.rows ?? []), ...pastLines.value];
  // A machine that told its pages down to some time has told all that is newer: older lines of others wait for it.
  const floor = Math.max(0, ...rooms.value.map((room) => {
    const page = pages.value.get(room);
    return page?.next ? Number(page.next.split('.')[0]) || 0 : 0;
  }));
  const shown = rooms.value.length > 1 && floor ? rest.filter((line) => timeOfLine(line) >= floor) : rest;
  shown.sort((a, b) => timeOfLine(b) - timeOfLine(a));
  if (shown.length) made.push({ group: 'recent', lines: shown });
  return made;
});

/** Begins: first pages when a machine is there, new ones when something else is looked for. */
export function watchOverview(): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let asked = '';
  effect(() => {
    const wants = JSON.stringify([query.value.trim(), filter.value]);
    if (wants === asked) return;
    const typing = asked !== '';
    asked = wants;
    clearTimeout(timer);
    round++;
    const begin = (): void => {
      round++;
      // The old pages are shown until the new ones are there.
      pages.value = new Map([...pages.peek()].map(([room, page]) => [room, { ...page, next: undefined, busy: false, failed: false }]));
      stale = new Set(pages.peek().keys());
      loadMore();
    };
    if (typing) timer = setTimeout(begin, TYPING);
  });
  const begun = new Set<Room>();
  effect(() => {
    for (const room of rooms.value) {
      if (room.stranger.value) {
        // What was read is of the machine that was meant: it is read anew, whoever it is then.
        begun.delete(room);
      }
      if (!room.ready.value || begun.has(room)) continue;
      begun.add(room);
      queueMicrotask(() => {
        pages.value = new Map([...pages.peek()].filter(([one]) => one !== room));
        void fetchPage(room);
      });
    }
  });
}
