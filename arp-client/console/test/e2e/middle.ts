//! What stands between a browser and the relay: a proxy that may refuse WebSockets, and a network that may go
//! silent (nothing arrives and nothing is said of it) or break.

import { createServer, connect, type Server, type Socket } from 'node:net';

export class Middle {
  /** Answers an Upgrade with 403, as some company proxies do. */
  noSockets = false;
  /** How many WebSockets were asked for, how many streams of events, how many connections the relay
   *  spoke first on, and how many of those it has reset. */
  seen = { sockets: 0, streams: 0, greeted: 0, unused: 0 };
  #server: Server;
  #pairs = new Set<[Socket, Socket]>();
  #silent = false;

  constructor(to: URL) {
    this.#server = createServer((near) => {
      const far = connect(Number(to.port), to.hostname);
      const pair: [Socket, Socket] = [near, far];
      this.#pairs.add(pair);
      const end = (): void => {
        this.#pairs.delete(pair);
        near.destroy();
        far.destroy();
      };
      // A reset is passed on as one: what came before it is not read any more.
      far.on('error', ({ code }: NodeJS.ErrnoException) => {
        if (code !== 'ECONNRESET') return;
        if (!near.bytesRead && far.bytesRead) this.seen.unused++;
        near.resetAndDestroy();
      });
      for (const socket of pair) socket.on('error', end).on('close', end);
      if (this.#silent) near.pause();
      near.on('data', (data: Buffer) => {
        const head = data.toString('latin1');
        if (/^GET [^\r]*(stream=true|api\/events )/.test(head)) this.seen.streams++;
        if (/^upgrade: *websocket/im.test(head) && /^GET /.test(head)) {
          this.seen.sockets++;
          if (this.noSockets) return void near.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
        }
        if (!far.write(data)) near.pause();
      });
      far.on('drain', () => this.#silent || near.resume());
      far.on('data', (data: Buffer) => {
        if (!near.bytesRead && far.bytesRead === data.length) this.seen.greeted++;
        if (!near.write(data)) far.pause();
      });
      near.on('drain', () => this.#silent || far.resume());
    });
  }

  /** How many connections stand that neither side said anything on. */
  silent(): number {
    return [...this.#pairs].filter(([near, far]) => !near.bytesRead && !far.bytesRead).length;
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`;
  }

  /** Nothing passes any more, in either direction, and nobody is told: a phone that left its cell. */
  silence(): void {
    this.#silent = true;
    for (const pair of this.#pairs) for (const socket of pair) socket.pause();
  }

  /** New connections pass again; those that were silent stay so, as after a change of address. */
  speak(): void {
    this.#silent = false;
  }

  /** Breaks what stands. */
  cut(): void {
    for (const [near, far] of this.#pairs) {
      near.destroy();
      far.destroy();
    }
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}
