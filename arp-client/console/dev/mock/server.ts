//! Serves pretended edges over HTTP as relay and edge together would: tokens in all their forms, the console's
//! bundle with the headers of the real thing, the API, WebSockets and SSE. Can misbehave on request.

import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import type { Socket } from 'node:net';
import { WebSocketServer, type WebSocket } from 'ws';
import { DECISIONS, HttpError, json, readBody, type Body } from './http.ts';
import type { MockEdge, MockSession } from './edge.ts';
import type { MockGateway } from './gateway.ts';

const ROOT = join(import.meta.dirname, '../..');
const TYPES: Record<string, string> = { html: 'text/html; charset=utf-8', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml', png: 'image/png', webmanifest: 'application/manifest+json' };

/** `LATE`: answers, and now and then what a socket tells, come by chance up to so many milliseconds late. */
const LATE = Number(process.env['LATE'] ?? 0);
const late = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, Math.random() * LATE));

export class MockServer {
  /** Edges by token. */
  readonly edges = new Map<string, MockEdge>();
  /** Refuse WebSockets, as some proxies do. */
  noSockets = false;
  /** The edge is not connected: the relay answers 503. */
  away = false;
  /** Takes connections and answers nothing, as a network does that lost the way back. */
  mute = false;
  /** Takes messages and never answers, as a line does that is cut between the two. */
  losesAnswers = false;
  /** All requests, as `METHOD path referer`, for what must not leak. */
  readonly seen: { method: string; url: string; referer: string; token: string }[] = [];
  #server: Server;
  #sockets = new Set<Socket>();
  #wss = new WebSocketServer({ noServer: true });
  #dist: string;

  constructor(dist = join(ROOT, 'dist')) {
    this.#dist = dist;
    this.#server = createServer((request, response) => {
      this.#handle(request, response).catch((error: unknown) => {
        if (response.headersSent) return void response.destroy();
        const known = error instanceof HttpError ? error : new HttpError(500, 'internal', String(error));
        json(response, known.status, { type: 'error', code: known.code, message: known.message });
      });
    });
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    this.#server.on('upgrade', (request, socket, head) => {
      const found = this.#route(request);
      const key = found?.edge?.edgeKey;
      const locked = Boolean(key) && !(request.headers.cookie ?? '').includes(`arp_edge=${key}`);
      if (this.mute) return;
      const meant = found?.url.searchParams.get('edge_id');
      if (this.noSockets || this.away || locked || !found?.edge || (meant && meant !== found.edge.info.edge_id)) return void socket.destroy();
      this.#wss.handleUpgrade(request, socket, head, (web) => this.#socket(found.edge as MockEdge, found.url, web));
    });
  }

  async listen(port = 0): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(port, '127.0.0.1', resolve));
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === 'object' ? address?.port : port}`;
  }

  /** Breaks every connection, as a cut network does. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  /**
   * Finds the token in its forms and takes it out, as the relay does. A header, a prefix or `arp_token=` that names
   * nobody is nobody, whatever the cookie says.
   */
  #route(request: IncomingMessage): { edge: MockEdge | null; token: string; url: URL; cookie: string } | null {
    const url = new URL(request.url ?? '/', 'http://relay');
    const referer = String(request.headers.referer ?? '');
    const prefix = /^\/t\/([^/]+)(\/.*)$/.exec(url.pathname);
    const strict = url.searchParams.get('arp_token') ?? request.headers['x-arp-token'] ?? (prefix ? decodeURIComponent(prefix[1] ?? '') : null);
    const loose = url.searchParams.get('token') ?? '';
    let token = strict === null ? (this.edges.has(loose) ? loose : '') : String(strict);
    const cookie = url.searchParams.get('arp_token') ?? (prefix ? (prefix[1] ?? '') : token && token === loose ? loose : '');
    url.searchParams.delete('token');
    url.searchParams.delete('arp_token');
    if (prefix) url.pathname = prefix[2] ?? '/';
    if (strict === null) {
      if (!token && referer) token = new URL(referer).searchParams.get('token') ?? '';
      token ||= /(?:^|; )arp_token=([^;]+)/.exec(request.headers.cookie ?? '')?.[1] ?? '';
    }
    this.seen.push({ method: request.method ?? '', url: request.url ?? '', referer, token });
    if (this.seen.length > 5000) this.seen.shift();
    return { edge: this.edges.get(token) ?? null, token, url, cookie };
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (this.mute) return;
    const found = this.#route(request);
    if (!found) throw new HttpError(400, 'bad_request', 'bad URL');
    const wantsPage = (request.headers.accept ?? '').includes('text/html');
    if (!found.token && wantsPage) return this.#landing(response);
    if (!found.token) throw new HttpError(401, 'token_required', 'Give the token.');
    if (!found.edge && wantsPage) return this.#refusal(response, 404, 'Not Found', 'unknown_token', 'no edge agent has registered this token: check it for typing errors, and that arpc is running');
    if (!found.edge) throw new HttpError(404, 'unknown_token', 'No client has this token.');
    if (this.away && wantsPage) return this.#refusal(response, 503, 'Service Unavailable', 'offline', 'the client is not connected; try again in 1 s', 1);
    if (this.away) {
      response.setHeader('Retry-After', '5');
      throw new HttpError(503, 'client_offline', 'The client is not connected.');
    }
    if (found.cookie && wantsPage) response.setHeader('Set-Cookie', `arp_token=${found.cookie}; HttpOnly; SameSite=Lax; Path=/; Max-Age=7776000`);
    if (!found.url.pathname.startsWith('/api/')) return this.#page(found.url.pathname, response);
    const body = await readBody(request);
    if (LATE) await late();
    const meant = request.headers['x-arp-edge'];
    if (found.edge.info.edge_id && meant !== undefined && meant !== found.edge.info.edge_id) throw new HttpError(409, 'other_edge', 'This request is meant for another machine.');
    if (this.losesAnswers && request.method === 'POST') {
      const answered = response.end.bind(response);
      response.writeHead = () => response;
      response.end = ((): ServerResponse => {
        request.socket.destroy();
        return answered();
      }) as typeof response.end;
    }
    await api(found.edge, request, response, found.url, body);
  }

  #landing(response: ServerResponse): void {
    const folder = join(ROOT, '../../arp-server/src/pages');
    const html = readFileSync(join(folder, 'landing.html'), 'utf8');
    response.setHeader('Content-Security-Policy', readFileSync(join(folder, 'landing.csp'), 'utf8').trim());
    response.writeHead(401, { 'Content-Type': 'text/html; charset=utf-8' }).end(html);
  }

  /** The relay's own page of an error, filled in as the relay does. */
  #refusal(response: ServerResponse, status: number, reason: string, code: string, message: string, retry?: number): void {
    const folder = join(ROOT, '../../arp-server/src/pages');
    const words: Record<string, string> = {
      status: String(status), reason, code, message, go_on: '', retry: retry ? String(retry) : '',
      refresh: retry ? `<noscript><meta http-equiv="refresh" content="${retry}"></noscript>\n` : '',
    };
    const html = readFileSync(join(folder, 'error.html'), 'utf8').replace(/\{\{(\w+)\}\}/g, (_, name: string) => words[name] ?? '');
    response.setHeader('Content-Security-Policy', readFileSync(join(folder, 'error.csp'), 'utf8').trim());
    response.writeHead(status, { 'Content-Type': 'text/html; charset=utf-8' }).end(html);
  }

  #page(path: string, response: ServerResponse): void {
    const name = path === '/' ? 'index.html' : path.slice(1);
    let bytes: Buffer;
    try {
      if (name.includes('..')) throw new Error('no');
      bytes = readFileSync(join(this.#dist, name));
    } catch {
      throw new HttpError(404, 'not_found', 'No such page.');
    }
    response.writeHead(200, {
      'Content-Type': TYPES[name.split('.').pop() ?? ''] ?? 'application/octet-stream',
      'Content-Security-Policy': readFileSync(join(ROOT, 'csp.txt'), 'utf8').trim(),
      'Referrer-Policy': 'same-origin', 'X-Content-Type-Options': 'nosniff', 'X-Arp-Console': '1',
      'Cache-Control': name.startsWith('assets/') ? 'public, max-age=31536000, immutable' : 'no-cache',
    }).end(bytes);
  }

  #socket(edge: MockEdge, url: URL, web: WebSocket): void {
    let told = Promise.resolve();
    const send = (frame: object): void => {
      const text = JSON.stringify(frame);
      const tell = (): void => {
        if (web.readyState === web.OPEN) web.send(text);
      };
      if (!LATE) return tell();
      if (Math.random() < 0.2) told = told.then(late);
      told = told.then(tell);
    };
    web.on('message', (data) => {
      if (String(data).includes('"ping"')) send({ type: 'pong' });
    });
    const id = /^\/api\/sessions\/([^/]+)\/ws$/.exec(url.pathname)?.[1];
    if (url.pathname === '/api/events/ws') {
      const stop = follow(edge, (frame) => send(frame));
      web.on('close', stop);
    } else if (id && edge.sessions.has(decodeURIComponent(id))) {
      const session = edge.sessions.get(decodeURIComponent(id)) as MockSession;
      const stop = followSession(edge, session, Number(url.searchParams.get('since') ?? 0), (frame) => send(frame));
      web.on('close', stop);
    } else web.close();
  }
}

/** Everything at once, §5. Returns how to stop. */
function follow(edge: MockEdge, send: (frame: { type: string }) => void): () => void {
  const all = [...edge.sessions.values()].map((session) => session.object);
  const sessions = all.sort((a, b) => (a.updated_at < b.updated_at ? 1 : -1)).slice(0, 100);
  send({ type: 'snapshot', sessions, approvals: edge.approvals(), total: all.length } as { type: string });
  const hear: [string, (data: object) => void][] = [
    ['session', (session) => send({ type: 'session', session } as { type: string })],
    ['removed', (data) => send({ type: 'session_removed', ...data })],
    ['approval', (approval) => send({ type: 'approval', approval } as { type: string })],
    ['gateway', (frame) => send(frame as { type: string })],
    ['tunnel', (tunnel) => send({ type: 'tunnel', tunnel } as { type: string })],
    ['approval_resolved', (data) => send({ type: 'approval_resolved', ...data })],
  ];
  for (const [name, listen] of hear) edge.on(name, listen);
  return () => {
    for (const [name, listen] of hear) edge.off(name, listen);
  };
}

/** One session from `since` on, §3. */
function followSession(edge: MockEdge, session: MockSession, since: number, send: (frame: { type: string } & Record<string, unknown>) => void): () => void {
  const { id } = session.object;
  send({ type: 'session', session: session.object });
  for (const event of session.log.slice(since)) send({ type: 'event', event });
  send({ type: 'caught_up', seq: session.log.length });
  const onEvent = (of: string, event: object): void => {
    if (of === id) send({ type: 'event', event });
  };
  const onSession = (object: { id: string }): void => {
    if (object.id === id) send({ type: 'session', session: object });
  };
  const onEnd = (of: string, status: string): void => {
    if (of === id) send({ type: 'completion', status });
  };
  edge.on('event', onEvent).on('session', onSession).on('completion', onEnd);
  if (['completed', 'failed', 'cancelled'].includes(session.object.status)) send({ type: 'completion', status: session.object.status });
  return () => void edge.off('event', onEvent).off('session', onSession).off('completion', onEnd);
}

function sse(request: IncomingMessage, response: ServerResponse, begin: (send: (frame: { type: string } & Record<string, unknown>) => void) => () => void): void {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
  const stop = begin((frame) => {
    const event = frame['event'] as { seq: number } | undefined;
    if (frame.type === 'event' && event) response.write(`id: ${event.seq}\ndata: ${JSON.stringify(event)}\n\n`);
    else response.write(`event: ${frame.type}\ndata: ${JSON.stringify(frame)}\n\n`);
  });
  const timer = setInterval(() => response.write(': ping\n\n'), 15_000);
  request.on('close', () => {
    clearInterval(timer);
    stop();
  });
}

function gatewayEvents(request: IncomingMessage, response: ServerResponse, gateway: MockGateway): void {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
  response.write(': here\n\n');
  const tell = (name: string, data: object): void => void response.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
  gateway.on('event', tell);
  request.on('close', () => gateway.off('event', tell));
}

let made = 1;

const inUse = (): HttpError => new HttpError(409, 'session_in_use', 'The session is open in another process.');

async function api(edge: MockEdge, request: IncomingMessage, response: ServerResponse, url: URL, body: Body): Promise<void> {
  const parts = url.pathname.split('/').slice(2).map(decodeURIComponent);
  const method = request.method ?? 'GET';
  const query = url.searchParams;
  const ok = (answer: object, status = 200): void => json(response, status, answer);
  const cookies = request.headers.cookie ?? '';
  if (edge.edgeKey && !['health', 'login'].includes(parts[0] ?? '') && !cookies.includes(`arp_edge=${edge.edgeKey}`)) throw new HttpError(401, 'edge_key_required', 'This machine asks for its key.');
  const find = (id: string | undefined): MockSession => {
    const session = edge.sessions.get(id ?? '');
    if (!session) throw new HttpError(404, 'session_not_found', 'There is no such session.');
    return session;
  };
  const route = `${method} ${parts[0]}${parts.length > 1 ? '/*' : ''}${parts.length > 2 ? `/${parts[2]}` : ''}`;
  const agent = ['claude', 'codex', 'gemini'].includes(parts[0] ?? '') ? (parts[0] as string) : '';
  if (agent) return history(edge, agent, method, parts, query, ok);
  switch (route) {
    case 'GET health':
      return ok({ type: 'health', status: 'ok' });
    case 'POST login':
      if (body['edge_key'] !== edge.edgeKey) throw new HttpError(401, 'edge_key_wrong', 'Wrong key.');
      response.setHeader('Set-Cookie', `arp_edge=${edge.edgeKey}; HttpOnly; Path=/`);
      return ok({ type: 'logged_in' });
    case 'GET info':
      return ok({ type: 'info', ...edge.info });
    case 'GET events':
      return sse(request, response, (send) => follow(edge, send as (frame: { type: string }) => void));
    case 'GET overview': {
      const words = (query.get('q') ?? '').toLowerCase().split(/\s+/).filter(Boolean);
      const own = [...edge.sessions.values()].map(({ object }) => object);
      const covered = new Set(own.map(({ agent_session_id }) => agent_session_id));
      const all = [
        ...own.map((session) => ({ at: Date.parse(session.updated_at), entry: { kind: 'session', session }, session, executor: session.executor })),
        ...edge.past.filter(({ session }) => !covered.has(session.id)).map(({ session, agent }) => ({ at: Date.parse(String(session.created_at)), entry: { kind: 'past', executor: agent, session }, session, executor: agent })),
      ]
        .filter(({ session, executor }) => (!query.get('executor') || executor === query.get('executor')) && (!query.get('project_path') || session.project_path === query.get('project_path')))
        .filter(({ session }) => words.every((word) => `${session.title ?? ''} ${session.first_message ?? ''} ${session.project_path}`.toLowerCase().includes(word)))
        .sort((a, b) => b.at - a.at || (a.session.id < b.session.id ? 1 : -1));
      const [time, id = ''] = (query.get('before') ?? '').split(/\.(.*)/s);
      const from = time ? all.findIndex((one) => one.at < Number(time) || (one.at === Number(time) && one.session.id < id)) : 0;
      const page = from < 0 ? [] : all.slice(from, from + Number(query.get('limit') ?? 50));
      const last = page[page.length - 1];
      const more = last && all.indexOf(last) < all.length - 1;
      return ok({ type: 'overview', entries: page.map(({ entry }) => entry), total: all.length, next: more ? `${last.at}.${last.session.id}` : null });
    }
    case 'GET directories': {
      const used = new Map<string, number>();
      for (const { object } of edge.sessions.values()) used.set(object.project_path, Math.max(used.get(object.project_path) ?? 0, Date.parse(object.updated_at)));
      for (const { session } of edge.past) used.set(session.project_path, Math.max(used.get(session.project_path) ?? 0, Date.parse(String(session.created_at))));
      const recent = [...used].sort((a, b) => b[1] - a[1]).map(([path, last_used]) => ({ path, kind: 'recent', last_used }));
      return ok({ type: 'directories', directories: [{ path: edge.info.home_dir, kind: 'home', last_used: null }, ...recent, { path: '/home/me/code/garden', kind: 'repository', last_used: 1_795_000_000_000 }, { path: '/home/me/code/dotfiles', kind: 'repository', last_used: null }] });
    }
    case 'GET sessions': {
      const sessions = [...edge.sessions.values()].map((session) => session.object).slice(0, Number(query.get('limit') ?? 50));
      return ok({ type: 'sessions', sessions, total: edge.sessions.size });
    }
    case 'POST sessions': {
      const resumed = edge.past.find(({ session }) => session.id === body['resume']);
      if (resumed && edge.pastInUse.has(resumed.session.id) && !body['fork']) throw inUse();
      const clientId = String(body['client_id'] ?? '');
      const before = edge.known.get(clientId);
      const session = before ? find(before) : edge.add({
        id: `s${Date.now().toString(36)}${made++}`, executor: String(body['executor'] ?? 'claude'), project_path: String(body['project_path'] ?? '/home/me/app'),
        ...(body['model'] ? { model: String(body['model']) } : {}), permission_mode: String(body['permission_mode'] ?? 'default'), status: 'starting',
        ...(resumed ? { title: resumed.session.first_message } : {}),
      });
      if (!before) {
        if (clientId) edge.known.set(clientId, session.object.id);
        for (const event of resumed?.events ?? []) session.push(event);
        session.changed();
        if (body['prompt']) setTimeout(() => session.message(String(body['prompt']), clientId), 30);
        else session.changed({ status: 'idle' });
      }
      return ok({ type: 'session_started', session_id: session.object.id, session: session.object }, 201);
    }
    case 'GET sessions/*': {
      const session = find(parts[1]);
      if ((request.headers.accept ?? '').includes('event-stream')) return sse(request, response, (send) => followSession(edge, session, Number(query.get('since') ?? 0), send));
      return ok({ type: 'session', session: session.object });
    }
    case 'GET sessions/*/events': {
      const { log } = find(parts[1]);
      const limit = Number(query.get('limit') ?? 200);
      const before = query.get('before');
      const end = before === null || before === 'latest' ? log.length : Number(before) - 1;
      const since = Number(query.get('since') ?? 0);
      const events = before === null ? log.slice(since, since + limit) : log.slice(Math.max(0, end - limit), end);
      const more = before === null ? since + limit < log.length : end - limit > 0;
      return ok({ type: 'events', events, first_seq: events[0]?.seq ?? 0, last_seq: events[events.length - 1]?.seq ?? 0, has_more: more });
    }
    case 'POST sessions/*/messages': {
      const session = find(parts[1]);
      if (session.inUse) throw inUse();
      const clientId = String(body['client_id']);
      const text = String(body['text'] ?? '');
      const answer = (status: string, duplicate: boolean): object => ({ type: 'message_accepted', message: { id: `m-${clientId}`, client_id: clientId, text, status }, duplicate });
      if (edge.known.has(clientId)) return ok(answer('sent', true));
      edge.known.set(clientId, session.object.id);
      const status = session.message(text, clientId);
      if (body['interrupt']) session.abort();
      return ok(answer(status, false), 202);
    }
    case 'DELETE sessions/*/messages': {
      const session = find(parts[1]);
      session.changed({ queue: session.object.queue.filter((message) => message.id !== parts[3]) });
      return ok({ type: 'message_removed' });
    }
    case 'POST sessions/*/interrupt':
      find(parts[1]).abort();
      return ok({ type: 'session_interrupted', was_running: true }, 202);
    case 'POST sessions/*/cancel': {
      const session = find(parts[1]);
      session.end('cancelled');
      return ok({ type: 'session_cancelled', session: session.object });
    }
    case 'POST sessions/*/fork': {
      const old = find(parts[1]);
      const session = edge.add({ ...old.object, id: `f${made++}`, parent_id: old.object.id, approvals: [], queue: [], turn: null, status: 'idle' });
      for (const { seq: _, at: __, ...event } of old.log) session.push(event as never);
      session.changed();
      if (body['prompt']) session.message(String(body['prompt']), String(body['client_id'] ?? ''));
      return ok({ type: 'session_started', session: session.object }, 201);
    }
    case 'PATCH sessions/*': {
      const session = find(parts[1]);
      const { model, permission_mode, title } = body as { model?: string; permission_mode?: string; title?: string };
      session.changed({ ...(model ? { model } : {}), ...(permission_mode ? { permission_mode } : {}), ...(title ? { title } : {}) });
      // A running agent says itself which mode it is in now.
      if (permission_mode) session.push({ type: 'init', agent_session_id: session.object.agent_session_id, model: session.object.model, cwd: session.object.project_path, permission_mode });
      return ok({ type: 'session', session: session.object });
    }
    case 'POST sessions/*/retry': {
      const session = find(parts[1]);
      if (!session.object.problem) throw new HttpError(409, 'wrong_state', 'Nothing went wrong.');
      if (session.inUse) throw inUse();
      const said = session.log.findLast((event) => event.type === 'user_message') as { text: string };
      session.message(said.text, String(body['client_id']));
      return ok({ type: 'message_accepted', message: { id: 'm-r', client_id: body['client_id'], text: said.text, status: 'sent' }, duplicate: false }, 202);
    }
    case 'DELETE sessions/*':
      if (find(parts[1]).object.turn && query.get('force') !== 'true') {
        find(parts[1]).end('cancelled');
        return ok({ type: 'session_cancelled', session_id: parts[1], history: 'kept' });
      }
      if (find(parts[1]).inUse && query.get('history') === 'delete' && query.get('force') !== 'true') throw inUse();
      find(parts[1]).abort();
      edge.sessions.delete(parts[1] ?? '');
      edge.emit('removed', { session_id: parts[1] });
      return ok(query.get('history') === 'keep' ? { type: 'session_removed', session_id: parts[1], history: 'kept' } : { type: 'session_deleted', session_id: parts[1], history: 'deleted' });
    case 'GET approvals':
      return ok({ type: 'approvals', approvals: edge.approvals() });
    case 'GET approvals/*': {
      const approval = edge.approvals().find(({ id }) => id === parts[1]);
      if (!approval) throw new HttpError(404, 'approval_not_found', 'There is no such approval.');
      return ok({ type: 'approval', approval, files: edge.previews.get(approval.id) ?? [] });
    }
    case 'POST approvals/*': {
      const session = [...edge.sessions.values()].find((one) => one.asked.has(parts[1] ?? ''));
      if (!session) throw new HttpError(409, 'approval_resolved', 'Decided already.');
      const decision = body as unknown as Parameters<MockSession['resolve']>[2];
      const outcome = DECISIONS(decision);
      session.resolve(parts[1] ?? '', outcome, decision);
      if (decision.interrupt) session.abort();
      return ok({ type: 'approval_resolved', id: parts[1], outcome });
    }
  }
  if (parts[0] === 'sessions' && parts[2] === 'gateway') {
    const { object } = find(parts[1]);
    if (!object.gateway) throw new HttpError(404, 'gateway_off', 'Started without --gateway.');
    if (method === 'PUT') {
      const choice = { ...object.gateway.choice, ...(body as object) };
      find(parts[1]).changed({ gateway: { ...object.gateway, choice, upstream: choice.upstream ?? 'official' } });
    }
    return ok({ type: 'gateway_session', session: object.id, service: object.executor, ...(object.gateway as object), requests: edge.gateway?.requests.slice(0, 3) ?? [] });
  }
  if (parts[0] === 'gateway') {
    const { gateway } = edge;
    if (!gateway) throw new HttpError(503, 'gateway_not_running', 'The gateway does not run on this machine.');
    if (parts[1] === 'events') return gatewayEvents(request, response, gateway);
    return ok(gateway.answer(method, parts.slice(1), query, body));
  }
  if (parts[0] === 'fs' || parts[2] === 'fs') return files(edge, parts[0] === 'fs' ? parts.slice(1) : parts.slice(3), parts[0] === 'fs' ? '' : find(parts[1]).object.project_path, ok);
  throw new HttpError(404, 'not_found', `No ${route} here.`);
}

const seconds = (when: string | null): number | null => (when ? Math.floor(Date.parse(when) / 1000) : null);

function history(edge: MockEdge, agent: string, method: string, parts: string[], query: URLSearchParams, ok: (answer: object) => void): void {
  const mine = edge.past.filter((past) => past.agent === agent);
  const paths = [...new Set(mine.map(({ session }) => session.project_path))];
  const newest = (path: string): string | null => mine.filter(({ session }) => session.project_path === path).map(({ session }) => String(session.created_at ?? '')).sort().pop() ?? null;
  if (parts[1] === 'projects' && parts[2] === 'working-directories') {
    return ok({ type: 'working_directories', directories: paths.map((path) => ({ path, shortname: path.split('/').pop(), lastDate: seconds(newest(path)), conversationCount: 1 })) });
  }
  if (parts[1] === 'projects') {
    return ok({ type: 'projects', projects: paths.map((path) => ({ id: path.replaceAll('/', '-'), path, sessions: mine.filter(({ session }) => session.project_path === path).map(({ session }) => session.id), created_at: seconds(newest(path)), most_recent_session: seconds(newest(path)) })) });
  }
  const wanted = query.get('project_path');
  if (parts[1] === 'sessions' && !parts[2]) {
    const sessions = mine.filter(({ session }) => !wanted || session.project_path === wanted).map(({ session }) => session);
    return ok({ type: 'sessions', sessions, total: sessions.length });
  }
  const index = edge.past.findIndex(({ session }) => session.id === parts[2]);
  const past = edge.past[index];
  if (!past) throw new HttpError(404, 'session_not_found', 'No such session.');
  if (method === 'DELETE') {
    edge.past.splice(index, 1);
    return ok({ type: 'session_deleted', session_id: parts[2] });
  }
  ok({ type: 'session_history', session_id: parts[2], events: past.events.map((event, at) => ({ seq: at + 1, at: String(past.session.created_at), ...event })), offset: 0, next_offset: null });
}

function files(edge: MockEdge, parts: string[], root: string, ok: (answer: object) => void): void {
  const path = root ? [root, ...parts].join('/') : `/${parts.join('/')}`;
  if (path === '/') return ok({ type: 'roots', roots: [{ path: '/home/me/app', name: 'app' }] });
  const content = edge.files.get(path);
  if (content !== undefined) return ok({ type: 'file', path, size: content.length, bytes: content.length, encoding: 'utf-8', truncated: false, content });
  const below = [...edge.files.keys()].filter((name) => name.startsWith(`${path}/`));
  if (!below.length) throw new HttpError(404, 'file_not_found', 'No such file or directory.');
  const names = new Map<string, boolean>();
  for (const name of below) {
    const [first = '', ...rest] = name.slice(path.length + 1).split('/');
    names.set(first, rest.length > 0);
  }
  ok({ type: 'directory', path, entries: [...names].map(([name, isDirectory]) => ({ name, type: isDirectory ? 'directory' : 'file', size: isDirectory ? null : edge.files.get(`${path}/${name}`)?.length, mtime: 1_795_000_000 })) });
}
