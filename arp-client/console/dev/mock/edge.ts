//! A pretended edge for development and tests: sessions, their logs, approvals, in memory. Speaks in the
//! objects of docs/api.md; how they travel is `server.ts`'s business.

import { EventEmitter } from 'node:events';
import type { AgentEvent, Approval, FilePreview, Outcome } from '../../src/model/events';
import type { MockGateway } from './gateway.ts';
import type { Info, PastSession, Session, Status, Tunnel, WaitingApproval, WireEvent } from '../../src/net/types';

export class MockSession {
  readonly log: WireEvent[] = [];
  readonly object: Session;
  /** Resolvers of approvals that wait, by id. */
  readonly asked = new Map<string, (decision: Decision) => void>();
  /** Somebody else, a terminal perhaps, has it open. */
  inUse = false;
  #turn = 0;
  /** Ends the turn that runs. */
  abort: () => void = () => undefined;

  constructor(readonly edge: MockEdge, fields: Partial<Session> & { id: string }) {
    const now = new Date().toISOString();
    this.object = {
      executor: 'claude', agent_session_id: `${fields.id}-agent`, title: null, first_message: null, project_path: '/home/me/app', model: 'opus',
      permission_mode: 'default', status: 'idle', turn: null, turns: 0, queue: [], approvals: [], pending_approvals: 0, last_seq: 0,
      activity: null, usage: null, error: null, parent_id: null, origin: 'api', created_at: now, updated_at: now, ended_at: null, ...fields,
    };
  }

  /** Appends an event; `at` for what lies in the past. */
  push(event: AgentEvent, at = new Date()): void {
    const wire = { ...event, seq: this.log.length + 1, at: at.toISOString() } as WireEvent;
    this.log.push(wire);
    this.object.last_seq = wire.seq;
    this.object.updated_at = wire.at ?? '';
    if (event.type === 'tool_call') this.object.activity = event.title;
    if (event.type === 'usage') {
      const { type: _, ...usage } = event;
      this.object.usage = usage;
    }
    this.edge.emit('event', this.object.id, wire);
  }

  /** Tells everybody of the object. */
  changed(fields: Partial<Session> = {}): void {
    Object.assign(this.object, fields);
    this.object.pending_approvals = this.object.approvals.length;
    this.edge.emit('session', this.object);
  }

  /** Asks and waits for the decision. */
  ask({ files, ...approval }: Omit<Approval, 'id'> & { id?: string; files?: FilePreview[] }, at?: Date): Promise<Decision> {
    const full: Approval = { ...approval, id: approval.id ?? `${this.object.id}.${this.#turn}.${this.log.length}` };
    const waiting: WaitingApproval = {
      ...full, session_id: this.object.id, session_title: this.object.title, executor: this.object.executor, project_path: this.object.project_path,
      source: 'session', created_at: (at ?? new Date()).toISOString(), expires_at: null,
    };
    if (files) this.edge.previews.set(full.id, files);
    this.push({ type: 'approval', ...full }, at);
    this.changed({ status: 'waiting', approvals: [...this.object.approvals, waiting] });
    this.edge.emit('approval', waiting);
    return new Promise((resolve) => this.asked.set(full.id, resolve));
  }

  /** Somebody decided, or the question is void. */
  resolve(id: string, outcome: Outcome, decision: Decision): void {
    const waits = this.asked.get(id);
    if (!waits) return;
    this.asked.delete(id);
    this.push({ type: 'approval_resolved', id, outcome, ...(decision.message ? { message: decision.message } : {}), ...(decision.updated_input ? { edited: { asked: this.object.approvals.find((approval) => approval.id === id)?.input, ran: decision.updated_input } } : {}) });
    const approvals = this.object.approvals.filter((approval) => approval.id !== id);
    this.changed({ approvals, status: approvals.length ? 'waiting' : 'running' });
    this.edge.emit('approval_resolved', { id, session_id: this.object.id, outcome });
    waits(decision);
  }

  /** A message comes: now, or after the turn that runs. */
  message(text: string, clientId: string): 'queued' | 'sent' {
    if (this.object.turn) {
      this.changed({ queue: [...this.object.queue, { id: `m-${clientId}`, client_id: clientId, text, created_at: new Date().toISOString() }] });
      return 'queued';
    }
    void this.#run(text, clientId);
    return 'sent';
  }

  async #run(text: string, clientId: string): Promise<void> {
    this.#turn++;
    const started = Date.now();
    this.object.first_message ??= text;
    this.object.title ??= text.slice(0, 60);
    this.changed({ status: 'running', problem: null, turns: this.#turn, turn: { number: this.#turn, started_at: new Date().toISOString(), prompt: text.slice(0, 200) } });
    this.push({ type: 'user_message', id: clientId, text });
    let status: 'completed' | 'interrupted' | 'failed' = 'completed';
    let message: string | undefined;
    const stop = new Promise<'stop'>((resolve) => (this.abort = () => resolve('stop')));
    try {
      if ((await Promise.race([this.edge.script(this, text, stop), stop])) === 'stop') status = 'interrupted';
    } catch (error) {
      status = 'failed';
      message = (error as Error).message;
    }
    for (const id of [...this.asked.keys()]) this.resolve(id, 'void', { decision: 'deny' });
    this.push({ type: 'turn_end', status, duration_ms: Date.now() - started, ...(message ? { message } : {}) });
    if (this.object.ended_at) return this.changed({ turn: null });
    this.changed({ status: status === 'failed' ? 'failed' : 'idle', error: message ?? null, turn: null });
    const [next, ...queue] = this.object.queue;
    if (next) {
      this.changed({ queue });
      void this.#run(next.text, next.client_id ?? next.id);
    }
  }

  end(status: Status): void {
    this.abort();
    this.push({ type: 'status', status });
    this.changed({ status, turn: null, ended_at: new Date().toISOString() });
    this.edge.emit('completion', this.object.id, status);
  }
}

export interface Decision {
  decision: 'allow' | 'deny';
  for_session?: boolean;
  message?: string;
  interrupt?: boolean;
  updated_input?: Record<string, unknown>;
  permission_mode?: string;
  answers?: Record<string, string>;
}

export type Script = (session: MockSession, prompt: string, stop: Promise<unknown>) => Promise<unknown>;

export interface Past { session: PastSession; agent: string; events: AgentEvent[] }

export class MockEdge extends EventEmitter {
  /** Ids of past sessions that somebody else has open. */
  readonly pastInUse = new Set<string>();
  readonly sessions = new Map<string, MockSession>();
  readonly past: Past[] = [];
  readonly files = new Map<string, string>();
  /** What approvals would do to files, by their id. */
  readonly previews = new Map<string, FilePreview[]>();
  /** Ids of starts and messages that were seen, for idempotency. */
  readonly known = new Map<string, string>();
  info: Info;
  edgeKey: string | null = null;
  /** Null while it does not run. */
  gateway: MockGateway | null = null;

  /** Its agents go through this gateway. */
  withGateway(gateway: MockGateway): MockGateway {
    this.gateway = gateway;
    this.info = { ...this.info, gateway: true };
    return gateway;
  }


  constructor(public script: Script, name = 'studio') {
    super();
    this.setMaxListeners(0);
    const capabilities = { approvals: true, token_deltas: true, interrupt: true, resume: true, resume_last: true, fork: true, set_model: true, set_permission_mode: true, allowed_tools: true, history: true };
    const modes = ['default', 'acceptEdits', 'plan'];
    this.info = {
      version: '0.1.0', host_name: name, os: 'linux', edge_id: `edge-${name}`, client_id: name, home_dir: '/home/me', fs_enabled: true, allow_bypass: false, edge_key_required: false,
      agents: [
        { executor: 'claude', name: 'Claude Code', found: true, version: '2.1.329', path: '/usr/local/bin/claude', problem: null, capabilities, permission_modes: modes, models: ['opus', 'sonnet', 'haiku'] },
        { executor: 'codex', name: 'Codex', found: true, version: '0.169.0', path: '/usr/local/bin/codex', problem: null, capabilities, permission_modes: modes, models: ['gpt-5.5'] },
        { executor: 'gemini', name: 'Gemini CLI', found: false, version: null, path: null, problem: 'Gemini CLI was not found on this machine (looked in PATH). Install it with `npm install -g @google/gemini-cli`, then run `gemini` once to log in.', capabilities: { ...capabilities, fork: false }, permission_modes: modes, models: ['gemini-2.5-pro'] },
      ],
      defaults: { executor: 'claude', project_path: '/home/me/app', permission_mode: 'default' },
    };
  }

  add(fields: Partial<Session> & { id: string }): MockSession {
    const session = new MockSession(this, fields);
    this.sessions.set(fields.id, session);
    return session;
  }

  /** Its tunnel stands otherwise now. */
  tunnel(tunnel: Tunnel): void {
    this.info = { ...this.info, tunnel };
    this.emit('tunnel', tunnel);
  }

  approvals(): WaitingApproval[] {
    return [...this.sessions.values()].flatMap((session) => session.object.approvals);
  }
}
