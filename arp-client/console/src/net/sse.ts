//! Server-sent events over `fetch`, so that headers can be sent (EventSource cannot). The parser is pure.

/** One event of the stream. */
export interface SseEvent { event: string; data: string; id: string | null }

/** Longest unfinished event that is kept, in UTF-16 units; a stream that sends more is broken. */
const MAX_PENDING = 16 * 1024 * 1024;

/** Splits a stream of text into events; fragments may be cut anywhere. */
export class SseParser {
  #rest = '';
  #event = '';
  #data: string[] = [];
  #id: string | null = null;

  /** Takes the next fragment and gives back the events that it completed. */
  push(fragment: string): SseEvent[] {
    const events: SseEvent[] = [];
    let text = this.#rest + fragment;
    // A final CR may be half of a CRLF: wait for what follows.
    const held = text.endsWith('\r') ? '\r' : '';
    if (held) text = text.slice(0, -1);
    const lines = text.split(/\r\n|\n|\r/);
    this.#rest = (lines.pop() ?? '') + held;
    if (this.#rest.length > MAX_PENDING) throw new Error('event too long');
    for (const line of lines) this.#line(line, events);
    return events;
  }

  #line(line: string, events: SseEvent[]): void {
    if (line === '') {
      if (this.#data.length) events.push({ event: this.#event, data: this.#data.join('\n'), id: this.#id });
      this.#event = '';
      this.#data = [];
      this.#id = null;
      return;
    }
    const colon = line.indexOf(':');
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') this.#event = value;
    else if (field === 'data') this.#data.push(value);
    else if (field === 'id') this.#id = value;
  }
}
