//! A connection that stays up: WebSocket, or SSE where sockets do not get through; heals itself after sleep,
//! network change and restarts. What is asked for and what comes is the owner's business (`Feed`).
//!
//! The owner's `query` is read anew for every attempt, so each one resumes after the last event seen.

import { signal } from '@preact/signals';
import { ApiError, call, headersOf, socketUrl, urlOf } from './api';
import type { Machine } from './machine';
import { SseParser } from './sse';

/** What a link carries. */
export interface Feed {
  /** Path of the SSE stream and of the WebSocket, each with its query for this moment. */
  sse(): string;
  socket(): string;
  /** One object from the server. Frames of the WebSocket and events of SSE are brought into one form. */
  frame(frame: Frame): void;
}

/** `{type:"event",event:{…}}`, `{type:"session",…}`, `{type:"snapshot",…}` and so on. */
export type Frame = { type: string } & Record<string, unknown>;

/** Why the line is down. */
export type Trouble = 'offline' | 'relay' | 'edge' | 'token' | 'key' | 'gone' | 'changed' | 'error';

export type LinkStatus =
  | { state: 'connecting'; since: number }
  | { state: 'live'; since: number; way: 'socket' | 'sse' }
  | { state: 'down'; since: number; trouble: Trouble; retryAt: number }
  | { state: 'ended'; since: number };

/** First and longest pause between attempts, in milliseconds. */
const FIRST_PAUSE = 400;
const LONGEST_PAUSE = 12_000;
/** A socket that is quiet this long is asked whether it lives; then it has this long to answer. */
const QUIET = 20_000;
const ANSWER = 6_000;
/** A line that stood this long was good. */
const STEADY = 4_000;
/** After sleep or a network change there is less patience. */
const QUICK_ANSWER = 2_500;
/** SSE sends a comment every 15 s; without anything for this long it is dead. */
const SSE_QUIET = 40_000;
/** A socket that does not open in this time is not going to. */
const OPENING = 8_000;
/** Longest wait for the answer that tells why a line does not come up. */
const DIAGNOSIS = 5_000;
/** From this many failures on an error is spoken of, though the machine answers. */
const FLAPPING = 4;

/** Turns an answer of the relay or edge into what to tell the user. */
export function troubleOf(error: unknown): Trouble {
  if (!(error instanceof ApiError)) return 'error';
  if (error.status === 0) return navigator.onLine ? 'relay' : 'offline';
  if (error.code === 'edge_key_required' || error.code === 'edge_key_wrong') return 'key';
  if (error.code === 'other_edge') return 'changed';
  if (error.code === 'session_not_found' || error.code === 'not_live') return 'gone';
  if (error.status === 401 || error.status === 403 || error.status === 404) return 'token';
  if (error.status === 502 || error.status === 503 || error.status === 504) return 'edge';
  return 'error';
}

/** Machines to which sockets do not get through: what is opened there later does not try again at once. */
const refusing = new Set<string>();

export class Link {
  readonly status = signal<LinkStatus>({ state: 'connecting', since: Date.now() });

  #feed: Feed;
  #machine: Machine;
  #running = false;
  #socket: WebSocket | null = null;
  #abort: AbortController | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #watch: ReturnType<typeof setTimeout> | undefined;
  #attempt = 0;
  /** Does the next attempt use SSE? */
  #bySse: boolean;
  /** Is the machine being asked why? */
  #asking = false;
  /** Each attempt has a number; what an older one still delivers is ignored. */
  #turn = 0;
  #hiddenAt = 0;
  /** When the next attempt is. */
  #retryAt = 0;
  /** When the line was lost; 0 while it stands. */
  #lostAt = 0;

  constructor(machine: Machine, feed: Feed) {
    this.#machine = machine;
    this.#feed = feed;
    this.#bySse = refusing.has(machine.alias);
  }

  /** Connects and stays connected until `stop`. */
  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#attempt = 0;
    document.addEventListener('visibilitychange', this.#wake);
    addEventListener('online', this.#wake);
    addEventListener('offline', this.#wake);
    addEventListener('pageshow', this.#wake);
    this.status.value = { state: 'connecting', since: Date.now() };
    this.#connect();
  }

  /** Lets go. `ended`: the server said that nothing more will come. */
  stop(ended = false): void {
    this.#running = false;
    document.removeEventListener('visibilitychange', this.#wake);
    removeEventListener('online', this.#wake);
    removeEventListener('offline', this.#wake);
    removeEventListener('pageshow', this.#wake);
    this.#drop();
    if (ended) this.status.value = { state: 'ended', since: Date.now() };
  }

  /** Tries at once, whatever the pause. */
  retry(): void {
    if (!this.#running) return;
    this.#attempt = 0;
    this.#connect();
  }

  /** Begins anew from where the owner stands: something was missed. */
  resync(): void {
    if (this.#running) this.#connect();
  }

  #wake = (): void => {
    if (document.visibilityState === 'hidden') {
      this.#hiddenAt = Date.now();
      return;
    }
    const slept = this.#hiddenAt ? Date.now() - this.#hiddenAt : 0;
    this.#hiddenAt = 0;
    if (!navigator.onLine) {
      this.#down('offline');
      return;
    }
    if (this.status.value.state !== 'live') this.retry();
    else if (this.#socket) this.#ask(QUICK_ANSWER);
    else if (slept > 5_000) this.#connect(QUICK_ANSWER);
  };

  #drop(): void {
    this.#turn++;
    clearTimeout(this.#timer);
    clearTimeout(this.#watch);
    this.#socket?.close();
    this.#socket = null;
    this.#abort?.abort();
    this.#abort = null;
  }

  /** `patience`: how long the beginning of a stream may take. */
  #connect(patience = OPENING): void {
    this.#drop();
    if (this.#bySse) void this.#stream(this.#turn, patience);
    else this.#dial(this.#turn);
  }

  #live(way: 'socket' | 'sse'): void {
    this.#lostAt = 0;
    if (this.status.value.state !== 'live') this.status.value = { state: 'live', since: Date.now(), way };
  }

  /** Lets go of what stands or is being tried, says that the line is down and why, and tries again after a pause. */
  #down(trouble: Trouble): void {
    this.#drop();
    if (!this.#running) return;
    this.#pause();
    this.#tell(trouble);
  }

  /** Says that the line is down and why. An attempt that is under way is not disturbed. */
  #tell(trouble: Trouble): void {
    this.#lostAt ||= Date.now();
    const trying = this.#socket !== null || this.#abort !== null;
    // What a retry cannot heal is asked for slowly.
    if (!trying && (trouble === 'token' || trouble === 'key' || trouble === 'gone' || trouble === 'changed')) this.#pause(LONGEST_PAUSE * 2);
    this.status.value = { state: 'down', since: this.#lostAt, trouble, retryAt: trying ? Date.now() : this.#retryAt };
  }

  /** Sets the clock for the next attempt. */
  #pause(least = 0): void {
    clearTimeout(this.#timer);
    const wait = Math.max(least, Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#attempt) * (0.7 + Math.random() * 0.6));
    this.#attempt++;
    this.#retryAt = Date.now() + wait;
    this.#timer = setTimeout(() => this.#connect(), wait);
  }

  /**
   * The line broke, or did not come up. One that stood is dialled anew at once: a new socket is a new connection,
   * whatever became of the old ones. Else it is tried again after a pause; why, is asked meanwhile and not before,
   * for the question may go out on a connection that has died in silence. `unopened`: a socket that never opened.
   */
  #failed(turn: number, how: 'cut' | 'unopened'): void {
    if (turn !== this.#turn || !this.#running) return;
    const status = this.status.value;
    const stood = status.state === 'live';
    if (stood) {
      // A line that held for a while earns an attempt at once; one that flaps does not.
      if (Date.now() - status.since > STEADY) this.#attempt = 0;
      this.#lostAt = Date.now();
      this.status.value = { state: 'connecting', since: this.#lostAt };
    }
    if (!navigator.onLine) return this.#down('offline');
    if (stood && this.#attempt === 0) {
      this.#attempt = 1;
      return this.#connect();
    }
    this.#drop();
    this.#pause();
    if (status.state === 'down') this.status.value = { ...status, retryAt: this.#retryAt };
    void this.#diagnose(how);
  }

  /** Asks for something small that needs all that the line needs (a health check needs no key). */
  async #diagnose(how: 'cut' | 'unopened'): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    let trouble: Trouble | null = null;
    try {
      await call(this.#machine, 'GET', 'api/sessions?limit=1', undefined, DIAGNOSIS);
    } catch (error) {
      trouble = troubleOf(error);
    }
    this.#asking = false;
    if (!this.#running || this.status.value.state === 'live') return;
    if (trouble) return this.#tell(trouble);
    // The machine answers and the socket does not open: something in between refuses it.
    if (how === 'unopened') this.#bySse = true;
    if (this.#attempt >= FLAPPING) this.#tell('error');
    else if (how === 'unopened') this.#connect();
  }

  #dial(turn: number): void {
    let opened = false;
    let socket: WebSocket;
    try {
      socket = new WebSocket(socketUrl(this.#machine, this.#feed.socket()));
    } catch {
      this.#bySse = true;
      return this.#connect();
    }
    this.#socket = socket;
    this.#watch = setTimeout(() => socket.close(), OPENING);
    const end = (): void => {
      if (turn !== this.#turn) return;
      this.#socket = null;
      clearTimeout(this.#watch);
      this.#failed(turn, opened ? 'cut' : 'unopened');
    };
    socket.onmessage = (message): void => {
      if (turn !== this.#turn) return;
      if (!opened) {
        opened = true;
        refusing.delete(this.#machine.alias);
        this.#live('socket');
      }
      this.#expect();
      this.#deliver(message.data);
    };
    socket.onclose = end;
    socket.onerror = end;
  }

  /** Sets the clock by which a quiet socket is asked whether it lives. */
  #expect(): void {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => this.#ask(ANSWER), QUIET);
  }

  #ask(patience: number): void {
    const socket = this.#socket;
    if (!socket || socket.readyState !== WebSocket.OPEN) return;
    clearTimeout(this.#watch);
    socket.send('{"type":"ping"}');
    const turn = this.#turn;
    this.#watch = setTimeout(() => {
      if (turn !== this.#turn) return;
      // A dead network never completes the closing handshake: leave the socket behind.
      this.#failed(turn, 'cut');
      socket.close();
    }, patience);
  }

  async #stream(turn: number, patience: number): Promise<void> {
    const abort = new AbortController();
    this.#abort = abort;
    const quiet = (limit: number): void => {
      clearTimeout(this.#watch);
      this.#watch = setTimeout(() => abort.abort(), limit);
    };
    quiet(patience);
    try {
      const response = await fetch(urlOf(this.#machine, this.#feed.sse()), {
        headers: headersOf(this.#machine, { Accept: 'text/event-stream' }),
        cache: 'no-store',
        signal: abort.signal,
      });
      if (!response.ok || !response.body) throw new ApiError(response.status, `http_${response.status}`, '');
      const parser = new SseParser();
      const decoder = new TextDecoder();
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (turn !== this.#turn) return;
        if (done) break;
        refusing.add(this.#machine.alias);
        this.#live('sse');
        quiet(SSE_QUIET);
        for (const event of parser.push(decoder.decode(value, { stream: true }))) {
          this.#deliver(event.data);
          if (turn !== this.#turn) return;
        }
      }
    } catch {
      // Told below.
    }
    clearTimeout(this.#watch);
    if (turn !== this.#turn) return;
    // A next time may find sockets working again.
    this.#bySse = false;
    this.#abort = null;
    this.#failed(turn, 'cut');
  }

  #deliver(data: unknown): void {
    let parsed: unknown;
    try {
      parsed = JSON.parse(String(data));
    } catch {
      return;
    }
    if (typeof parsed !== 'object' || parsed === null || typeof (parsed as Frame).type !== 'string') return;
    const frame = parsed as Frame;
    // On SSE an event of a session comes bare; its `seq` tells it apart.
    this.#feed.frame(typeof frame['seq'] === 'number' && frame.type !== 'caught_up' ? { type: 'event', event: frame } : frame);
  }
}
