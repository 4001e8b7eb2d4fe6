//! The gateway of one machine: what it says as it happens, kept for the pages that draw it.

import { signal } from '@preact/signals';
import { ApiError, call, headersOf, seg, urlOf } from '../net/api';
import { SseParser } from '../net/sse';
import type { Room } from '../state/machines';
import type { GatewayRequest, LiveRequest, Overview, Service, SessionAnswer, Upstream, UpstreamChange, Upstreams } from './types';

/** Pause before the stream is opened anew, in milliseconds: the first, doubled each time, and the longest. */
const PAUSE = 500;
const LONGEST_PAUSE = 15_000;
/** A stream that says nothing for so long is broken: the gateway sends a comment more often than that. */
const SILENCE = 45_000;

/** Asks the gateway of a machine. */
export const ask = <T>(room: Room, method: string, path: string, body?: unknown, timeout?: number): Promise<T> =>
  call<T>(room.machine, method, `api/gateway${path}`, body, timeout);

const upstream = (service: Service, name: string): string => `/upstreams/${service}/${seg(name)}`;

export const overview = (room: Room): Promise<Overview> => ask(room, 'GET', '');
export const upstreams = (room: Room): Promise<Upstreams> => ask(room, 'GET', '/upstreams');
export const changeUpstream = (room: Room, service: Service, name: string, change: UpstreamChange): Promise<Upstream> => ask(room, 'PUT', upstream(service, name), change);
export const upstreamDo = <T>(room: Room, service: Service, name: string, what: 'activate' | 'disable' | 'reset' | 'test', body: object = {}, timeout?: number): Promise<T> =>
  ask(room, 'POST', `${upstream(service, name)}/${what}`, body, timeout);
export const removeUpstream = (room: Room, service: Service, name: string): Promise<unknown> => ask(room, 'DELETE', upstream(service, name));
export const sessionOf = (room: Room, id: string): Promise<SessionAnswer> => call(room.machine, 'GET', `api/sessions/${seg(id)}/gateway`);
export const chooseFor = (room: Room, id: string, choice: { upstream?: string | null; model?: string | null }): Promise<unknown> => call(room.machine, 'PUT', `api/sessions/${seg(id)}/gateway`, choice);

/** Counts are read again after what happened, at most this often, in milliseconds. */
export const FOLLOW = 1_000;

/** Requests that were seen to end while the page was open, at most. */
const KEEP = 200;

/** What happens at the gateway while somebody looks. */
export class Feed {
  readonly live = signal<ReadonlyMap<number, LiveRequest>>(new Map());
  /** Newest first. */
  readonly over = signal<readonly GatewayRequest[]>([]);
  /** Counts what makes lists of upstreams stale. */
  readonly changes = signal(0);
  readonly connected = signal(false);
  #stop = new AbortController();
  #runs = false;

  constructor(readonly room: Room) {}

  /** Listens, if it does not already. */
  start(): void {
    if (this.#runs) return;
    this.#runs = true;
    void this.#run().finally(() => (this.#runs = false));
  }

  stop(): void {
    this.#stop.abort();
  }

  async #run(): Promise<void> {
    let pause = PAUSE;
    while (!this.#stop.signal.aborted) {
      try {
        await this.#follow(() => (pause = PAUSE));
      } catch (error) {
        // Who refuses now refuses in a second too.
        if (error instanceof ApiError && error.status >= 400 && error.status < 500) return;
      }
      this.connected.value = false;
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(LONGEST_PAUSE, pause * 2);
    }
  }

  async #follow(well: () => void): Promise<void> {
    const quiet = new AbortController();
    const signals = AbortSignal.any([this.#stop.signal, quiet.signal]);
    let timer = setTimeout(() => quiet.abort(), SILENCE);
    try {
      const response = await fetch(urlOf(this.room.machine, 'api/gateway/events'), { headers: headersOf(this.room.machine, { Accept: 'text/event-stream' }), cache: 'no-store', signal: signals });
      if (!response.ok || !response.body) throw new ApiError(response.status, 'no_stream', '');
      this.connected.value = true;
      // What was under way before may be over by now.
      this.live.value = new Map();
      this.changes.value++;
      const parser = new SseParser();
      const text = response.body.pipeThrough(new TextDecoderStream());
      const reader = text.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        well();
        clearTimeout(timer);
        timer = setTimeout(() => quiet.abort(), SILENCE);
        for (const { event, data } of parser.push(value)) this.#take(event, data);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #take(event: string, data: string): void {
    let told: unknown;
    try {
      told = JSON.parse(data);
    } catch {
      return;
    }
    if (event === 'live') {
      const one = told as LiveRequest;
      this.live.value = new Map(this.live.value).set(one.id, one);
    } else if (event === 'request') {
      const one = told as GatewayRequest;
      const live = new Map(this.live.value);
      live.delete(one.id);
      this.live.value = live;
      this.over.value = [one, ...this.over.value.filter(({ id }) => id !== one.id)].slice(0, KEEP);
    } else if (event === 'upstreams') this.changes.value++;
  }
}
