//! One open session: its events by page and live, and what can be done to it.

import { batch, signal } from '@preact/signals';
import { ApiError, call, newId, seg } from '../net/api';
import { Link, type Frame } from '../net/link';
import { Timeline } from '../model/timeline';
import type { Entry } from '../model/events';
import type { EventPage, Queued, Session, WireEvent } from '../net/types';
import { markSeen } from '../model/prefs';
import type { Room } from './machines';

/** Events of the first page, and of each earlier one. */
const FIRST_PAGE = 300;
const PAGE = 1000;

/** A message that was typed here and is not in the log yet. */
export interface Outgoing { clientId: string; text: string; state: 'sending' | 'sent' | 'failed'; error: string }

/** An event of the API as an entry of the log. */
export function entryOf(event: WireEvent): Entry {
  return { seq: event.seq, time: event.at ? Date.parse(event.at) || 0 : 0, event };
}

export class OpenSession {
  readonly timeline = signal(new Timeline());
  /** Counts changes of the timeline: what draws it reads this. */
  readonly version = signal(0);
  readonly outgoing = signal<readonly Outgoing[]>([]);
  /** Where the loaded part begins; 1 when all is loaded. */
  readonly firstSeq = signal(0);
  readonly loading = signal<'first' | 'older' | ''>('first');
  readonly failure = signal<ApiError | null>(null);
  readonly link: Link;

  #entries: Entry[] = [];
  #incoming: Entry[] = [];
  #frame = 0;
  #unlisten: () => void = () => undefined;
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

  async open(): Promise<void> {
    this.#unlisten = this.room.listen((frame) => {
      // A session that had ended runs again: listen again.
      if (frame.type !== 'session' || (frame['session'] as Session).id !== this.id) return;
      if (this.link.status.peek().state === 'ended' && (frame['session'] as Session).last_seq > this.#known()) this.link.start();
    });
    await this.loadFirst();
  }

  /** Reads the newest page, then listens from there. */
  async loadFirst(): Promise<void> {
    this.failure.value = null;
    this.loading.value = 'first';
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
        this.#entries = page.events.map(entryOf);
        this.#rebuild();
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
      const echoed = new Set(news.flatMap(({ event }) => (event.type === 'user_message' && event.id ? [event.id] : [])));
      if (echoed.size) this.outgoing.value = this.outgoing.peek().filter((message) => !echoed.has(message.clientId));
    });
    this.#looking ??= setTimeout(() => {
      this.#looking = undefined;
      if (document.visibilityState === 'visible' && !this.#closed) this.look();
    }, 1_000);
  }

  /** Notes that the user looks at it. */
  look(): void {
    markSeen(this.id, Math.max(this.#known(), this.session?.last_seq ?? 0));
  }

  /** Sends a message. Repeating it with the same id sends nothing twice. */
  async send(text: string, interrupt = false, clientId = newId()): Promise<void> {
    const set = (state: Outgoing['state'], error = ''): void => {
      const rest = this.outgoing.peek().filter((message) => message.clientId !== clientId);
      this.outgoing.value = [...rest, { clientId, text, state, error }];
    };
    set('sending');
    try {
      const answer = await call<{ message: Queued & { status: string } }>(this.room.machine, 'POST', `api/sessions/${seg(this.id)}/messages`, {
        text, client_id: clientId, interrupt,
      });
      // A queued one is in the session's queue; a sent one comes back in the log.
      if (answer.message.status === 'queued') this.outgoing.value = this.outgoing.peek().filter((message) => message.clientId !== clientId);
      else if (this.outgoing.peek().some((message) => message.clientId === clientId)) set('sent');
      if (this.link.status.peek().state === 'ended') this.link.start();
    } catch (error) {
      set('failed', error instanceof ApiError ? error.message : '');
      throw error;
    }
  }

  /** Drops a message that could not be sent. */
  discard(clientId: string): void {
    this.outgoing.value = this.outgoing.peek().filter((message) => message.clientId !== clientId);
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

  async remove(): Promise<void> {
    await call(this.room.machine, 'DELETE', `api/sessions/${seg(this.id)}?force=true`);
    this.room.remove(this.id);
  }
}
