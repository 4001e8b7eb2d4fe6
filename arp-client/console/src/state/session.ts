//! One open session: its events by page and live, and what can be done to it.

import { batch, effect, signal } from '@preact/signals';
import { ApiError, call, seg } from '../net/api';
import { Link, type Frame } from '../net/link';
import { Timeline } from '../model/timeline';
import type { Entry } from '../model/events';
import type { EventPage, Session, WireEvent } from '../net/types';
import { markSeen } from '../model/prefs';
import type { Room } from './machines';
import { drop, lettersOf, post, type Letter } from './outbox';

/** Events of the first page, and of each earlier one. */
const FIRST_PAGE = 300;
const PAGE = 1000;

/** After a page did not come, it is asked for again after this, in milliseconds. */
const HEAL_PAUSE = 4_000;

/** An event of the API as an entry of the log. */
export function entryOf(event: WireEvent): Entry {
  return { seq: event.seq, time: event.at ? Date.parse(event.at) || 0 : 0, event };
}

export class OpenSession {
  readonly timeline = signal(new Timeline());
  /** Counts changes of the timeline: what draws it reads this. */
  readonly version = signal(0);
  /** Where the loaded part begins; 1 when all is loaded. */
  readonly firstSeq = signal(0);
  readonly loading = signal<'first' | 'older' | ''>('first');
  readonly failure = signal<ApiError | null>(null);
  readonly link: Link;

  #entries: Entry[] = [];
  #incoming: Entry[] = [];
  #frame = 0;
  #unlisten: () => void = () => undefined;
  #unheal: () => void = () => undefined;
  #healing: ReturnType<typeof setTimeout> | undefined;
  #tries = 0;
  #closed = false;
  #looking: ReturnType<typeof setTimeout> | undefined;

  constructor(readonly room: Room, readonly id: string) {
    const query = (): string => `since=${this.#known()}`;
    this.link = new Link(room.machine, {
      sse: () => `api/sessions/${seg(id)}?format=events&stream=true&${query()}`,
      socket: () => `api/sessions/${seg(id)}/ws?${query()}`,
      frame: (frame) => this.#take(frame),
    });
  }

  /** The session object, from the machine's list. */
  get session(): Session | undefined {
    return this.room.sessions.value.get(this.id);
  }

  /** Messages that were typed here and are not in the log yet. */
  get outgoing(): readonly Letter[] {
    return lettersOf(this.room, this.id);
  }

  async open(): Promise<void> {
    // What could not be read while the machine was away is read when it is back.
    this.#unheal = effect(() => {
      const failed = this.failure.value;
      clearTimeout(this.#healing);
      if (!failed || !(failed.status === 0 || failed.status >= 500 || failed.code === 'unknown_token')) return;
      const live = this.room.link.status.value.state === 'live';
      this.#healing = setTimeout(() => void this.loadFirst(), live ? Math.min(HEAL_PAUSE, 400 * 2 ** this.#tries++) : HEAL_PAUSE);
    });
    this.#unlisten = this.room.listen((frame) => {
      // A session that had ended runs again: listen again.
      if (frame.type !== 'session' || (frame['session'] as Session).id !== this.id) return;
      if (this.link.status.peek().state === 'ended' && (frame['session'] as Session).last_seq > this.#known()) this.link.start();
    });
    await this.loadFirst();
  }

  /** Reads the newest page, then listens from there. */
  async loadFirst(): Promise<void> {
    if (!this.failure.peek()) this.loading.value = 'first';
    try {
      const path = `api/sessions/${seg(this.id)}`;
      const page = await call<EventPage>(this.room.machine, 'GET', `${path}/events?before=latest&limit=${FIRST_PAGE}`);
      if (this.#closed) return;
      if (!this.session) {
        const { session } = await call<{ session: Session }>(this.room.machine, 'GET', `${path}?lines=none`);
        this.room.put(session);
      }
      if (this.#closed) return;
      batch(() => {
        this.failure.value = null;
        this.#tries = 0;
        this.#entries = page.events.map(entryOf);
        this.#rebuild();
        this.#echoed(this.#entries);
        this.firstSeq.value = page.has_more ? (this.#entries[0]?.seq ?? 1) : 1;
        this.loading.value = '';
      });
      this.link.start();
    } catch (error) {
      if (this.#closed) return;
      this.loading.value = '';
      this.failure.value = error instanceof ApiError ? error : new ApiError(0, 'unknown', String(error));
    }
  }

  /** Reads the page before the loaded part. */
  async loadOlder(): Promise<void> {
    const before = this.firstSeq.peek();
    if (this.loading.peek() || before <= 1) return;
    this.loading.value = 'older';
    try {
      const page = await call<EventPage>(this.room.machine, 'GET', `api/sessions/${seg(this.id)}/events?before=${before}&limit=${PAGE}`);
      if (this.#closed) return;
      batch(() => {
        this.#flush();
        this.#entries = [...page.events.map(entryOf), ...this.#entries];
        this.#rebuild();
        this.firstSeq.value = page.has_more && page.events.length ? (this.#entries[0]?.seq ?? 1) : 1;
        this.loading.value = '';
      });
    } catch {
      // The list asks again when it is scrolled there.
      setTimeout(() => (this.loading.value = ''), 3_000);
    }
  }

  close(): void {
    this.#closed = true;
    this.#unlisten();
    this.#unheal();
    clearTimeout(this.#healing);
    drop(new Set(this.outgoing.filter(({ state }) => state === 'sent').map(({ clientId }) => clientId)));
    this.link.stop();
    clearTimeout(this.#looking);
  }

  #known(): number {
    return this.#incoming[this.#incoming.length - 1]?.seq ?? this.#entries[this.#entries.length - 1]?.seq ?? 0;
  }

  #rebuild(): void {
    const timeline = new Timeline();
    timeline.apply(this.#entries);
    this.timeline.value = timeline;
    this.version.value++;
  }

  #take(frame: Frame): void {
    switch (frame.type) {
      case 'event': {
        const entry = entryOf(frame['event'] as WireEvent);
        const known = this.#known();
        if (entry.seq <= known) return;
        if (known && entry.seq > known + 1) {
          // Something is missing in between: ask again from what we have.
          this.link.resync();
          return;
        }
        this.#incoming.push(entry);
        this.#schedule();
        return;
      }
      case 'session':
        this.room.put(frame['session'] as Session);
        return;
      case 'completion':
        this.#flush();
        // The socket stays for a while and is closed by the server; nothing is to be asked for until then.
        this.link.stop(true);
        return;
      case 'removed':
        this.room.remove(this.id);
        this.link.stop(true);
    }
  }

  /** Events are applied once a frame, however many came. A hidden page has no frames: then by the clock. */
  #schedule(): void {
    if (this.#frame) return;
    this.#frame = 1;
    if (document.visibilityState === 'hidden') setTimeout(() => this.#flush(), 250);
    else requestAnimationFrame(() => this.#flush());
  }

  #flush(): void {
    this.#frame = 0;
    if (!this.#incoming.length || this.#closed) return;
    const news = this.#incoming;
    this.#incoming = [];
    this.#entries.push(...news);
    batch(() => {
      this.timeline.peek().apply(news);
      this.version.value++;
      this.#echoed(news);
    });
    this.#looking ??= setTimeout(() => {
      this.#looking = undefined;
      if (document.visibilityState === 'visible' && !this.#closed) this.look();
    }, 1_000);
  }

  /** What the log shows is with the machine, whatever became of the answer. */
  #echoed(entries: readonly Entry[]): void {
    drop(new Set(entries.flatMap(({ event }) => (event.type === 'user_message' && event.id ? [event.id] : []))));
  }

  /** Notes that the user looks at it. */
  look(): void {
    const { session } = this;
    if (session) markSeen(session, Math.max(this.#known(), session.last_seq));
  }

  /** Sends a message, now or as soon as the machine can be reached. */
  send(text: string, interrupt = false): void {
    post(this.room, this.id, text, interrupt);
    if (this.link.status.peek().state === 'ended') this.link.start();
  }

  async unqueue(id: string): Promise<void> {
    await call(this.room.machine, 'DELETE', `api/sessions/${seg(this.id)}/messages/${seg(id)}`);
  }

  async interrupt(): Promise<void> {
    await call(this.room.machine, 'POST', `api/sessions/${seg(this.id)}/interrupt`, {});
  }

  async cancel(): Promise<void> {
    const { session } = await call<{ session: Session }>(this.room.machine, 'POST', `api/sessions/${seg(this.id)}/cancel`, {});
    this.room.put(session);
  }

  async change(fields: { model?: string; permission_mode?: string; title?: string }): Promise<void> {
    const { session } = await call<{ session: Session }>(this.room.machine, 'PATCH', `api/sessions/${seg(this.id)}`, fields);
    this.room.put(session);
  }

  /**
   * Deletes the record of it here, or with it what the agent itself keeps (`delete`). The latter is not forced: what
   * a terminal has open stays, and that is told. No word of the history: as the machine thinks right.
   */
  async remove(history?: 'keep' | 'delete'): Promise<void> {
    const ask = (query: string): Promise<{ type: string }> => call(this.room.machine, 'DELETE', `api/sessions/${seg(this.id)}?${query}`, undefined, 60_000);
    if (history === 'delete') {
      // A running turn is only ended by the first.
      let { type } = await ask('history=delete');
      if (type === 'session_cancelled') ({ type } = await ask('history=delete'));
      if (type === 'session_cancelled') throw new ApiError(409, 'session_changed', '');
    } else await ask(history ? `history=${history}&force=true` : 'force=true');
    this.room.remove(this.id);
  }

  /** Tries again what went wrong. The same `clientId` does so once. */
  async retry(clientId: string): Promise<void> {
    await call(this.room.machine, 'POST', `api/sessions/${seg(this.id)}/retry`, { client_id: clientId }, 60_000);
    if (this.link.status.peek().state === 'ended') this.link.start();
  }
}
