//! The reducer: a session's events in, what the session view draws out. Pure, no I/O, no framework.
//!
//! Items are replaced, never changed, so that a row that did not change is not drawn again. Events may be
//! given twice (a resumed stream): those at or below the last sequence number are ignored.

import type { AgentEvent, Approval, Entry, FileChange, Outcome, PlanEntry, ToolKind, Usage } from './events';

/** Longest text of one block or one tool's output that is kept for drawing, in UTF-16 units. */
export const MAX_TEXT = 400_000;

interface Base { key: string; seq: number; time: number }
export interface UserItem extends Base { kind: 'user'; id: string | null; text: string }
export interface TextItem extends Base { kind: 'text'; text: string; streaming: boolean }
export interface ThinkingItem extends Base { kind: 'thinking'; text: string; streaming: boolean; endTime: number }
export interface ToolItem extends Base {
  kind: 'tool';
  id: string;
  name: string;
  tool: ToolKind;
  title: string;
  input: unknown;
  /** What the agent asked for and what ran in its place, where that was changed with the permission. */
  asked?: unknown;
  ran?: unknown;
  changes: FileChange[];
  output: string;
  /** `waiting`: an approval stands in the way. `stopped`: the turn ended before a result came. */
  state: 'running' | 'waiting' | 'done' | 'failed' | 'denied' | 'stopped';
  exitCode: number | null;
  endTime: number;
  children: Item[];
}
/** `old`: a later list of steps took its place. */
export interface PlanItem extends Base { kind: 'plan'; entries: PlanEntry[]; old: boolean }
export interface ErrorItem extends Base { kind: 'error'; message: string; retrying: boolean }
export interface TurnItem extends Base { kind: 'turn'; status: 'completed' | 'interrupted' | 'failed'; message: string; durationMs: number | null }
export interface DecisionItem extends Base { kind: 'decision'; approval: Approval; outcome: Outcome | null; message: string; asked?: unknown; ran?: unknown }
export interface StderrItem extends Base { kind: 'stderr'; text: string }
export interface RawItem extends Base { kind: 'raw'; data: unknown }
export type Item =
  | UserItem | TextItem | ThinkingItem | ToolItem | PlanItem | ErrorItem | TurnItem | DecisionItem | StderrItem | RawItem;

/** What the agent last said of itself. */
export interface Facts { agentSessionId: string | null; model: string | null; cwd: string | null; mode: string | null }

/** Where an item lives: in the main list (`parent` null), or among the children of that tool call. */
interface Place { parent: string | null; index: number }

const clip = (text: string): string => (text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}\n…` : text);

/** The state of one session as its events tell it. */
export class Timeline {
  /** The rows to draw, in order. A new array after every change. */
  items: Item[] = [];
  /** Approvals that wait, oldest first. */
  pending: Approval[] = [];
  plan: PlanEntry[] = [];
  usage: Usage | null = null;
  facts: Facts = { agentSessionId: null, model: null, cwd: null, mode: null };
  /** Does a turn run, as far as the events tell? */
  running = false;
  /** When the running turn began. */
  turnStart = 0;
  /** The highest sequence number applied. */
  lastSeq = 0;

  /** What the agent does now, or the text of which it is the last line: that is looked for when it is asked for. */
  #doing = '';
  #says = '';
  #places = new Map<string, Place>();
  #tools = new Map<string, string>();
  #decisions = new Map<string, { key: string; approval: Approval }>();
  #lastPlan = '';
  #open = new Set<string>();
  /** Lists made during this `apply`, which nobody has seen yet: they may be written to. */
  #fresh = new Set<Item[]>();

  /** Applies entries in order; those already seen are skipped. Returns whether anything changed. */
  apply(entries: readonly Entry[]): boolean {
    this.#fresh.clear();
    const before = this.lastSeq;
    for (const entry of entries) {
      if (entry.seq <= this.lastSeq) continue;
      this.lastSeq = entry.seq;
      this.#one(entry);
    }
    return this.lastSeq !== before;
  }

  #one({ seq, time, event }: Entry): void {
    const base = { seq, time };
    switch (event.type) {
      case 'init':
        this.facts = {
          agentSessionId: event.agent_session_id ?? this.facts.agentSessionId,
          model: event.model ?? this.facts.model,
          cwd: event.cwd ?? this.facts.cwd,
          mode: event.permission_mode ?? this.facts.mode,
        };
        return;
      case 'user_message':
        this.#settle(time, false);
        this.#begin(time);
        this.#add(null, { ...base, kind: 'user', key: `u${seq}`, id: event.id, text: clip(event.text) });
        return;
      case 'text':
      case 'thinking':
        this.#text(event, seq, time);
        return;
      case 'tool_call':
        this.#toolCall(event, seq, time);
        return;
      case 'tool_result':
        this.#toolResult(event, seq, time);
        return;
      case 'plan':
        this.#planned(event.entries, seq, time);
        return;
      case 'approval':
        this.#asked(event, seq, time);
        return;
      case 'approval_resolved':
        this.#resolved(event.id, event.outcome, event.message ?? '', time, event.edited ?? null);
        return;
      case 'usage': {
        const { type: _, ...usage } = event;
        this.usage = { ...this.usage, ...usage };
        return;
      }
      case 'error':
        this.#error(event.message, event.retrying, seq, time);
        return;
      case 'turn_end':
        this.#settle(time, event.status !== 'completed');
        this.running = false;
        this.#do('');
        this.#add(null, {
          ...base, kind: 'turn', key: `e${seq}`, status: event.status,
          message: event.message ?? '', durationMs: event.duration_ms ?? (this.turnStart && time ? time - this.turnStart : null),
        });
        return;
      case 'status':
        if (event.status === 'failed') this.#error(event.message ?? '', false, seq, time);
        if (event.status === 'failed' || event.status === 'cancelled' || event.status === 'completed') {
          this.#settle(time, true);
          this.running = false;
          this.#do('');
        }
        return;
      case 'stderr': {
        const last = this.items[this.items.length - 1];
        if (last?.kind === 'stderr') this.#replace(last.key, { ...last, text: clip(`${last.text}\n${event.text}`) });
        else this.#add(null, { ...base, kind: 'stderr', key: `s${seq}`, text: event.text });
        return;
      }
      case 'raw':
        this.#add(null, { ...base, kind: 'raw', key: `r${seq}`, data: event.data });
        return;
      default:
        // A word this console does not know yet: shown as it came.
        this.#add(null, { ...base, kind: 'raw', key: `r${seq}`, data: event });
    }
  }

  /** What the agent does now, one line; empty when nothing runs. */
  get activity(): string {
    if (this.#says) this.#do(lastLine(this.#says));
    return this.#doing;
  }

  #do(what: string): void {
    this.#doing = what;
    this.#says = '';
  }

  #begin(time: number): void {
    if (!this.running) this.turnStart = time;
    this.running = true;
  }

  #text(event: Extract<AgentEvent, { type: 'text' | 'thinking' }>, seq: number, time: number): void {
    this.#begin(time);
    const key = `${event.type === 'text' ? 't' : 'h'}:${event.parent ?? ''}:${event.id}`;
    const old = this.#get(key) as TextItem | ThinkingItem | undefined;
    const text = clip(event.delta ? (old?.text ?? '') + event.text : event.text);
    const streaming = event.delta;
    if (streaming) this.#open.add(key); else this.#open.delete(key);
    // An empty block is noise unless something streams into it.
    if (!old && text.trim() === '') {
      if (!streaming) return;
    }
    if (event.type === 'text') {
      const item: TextItem = { kind: 'text', key, seq: old?.seq ?? seq, time: old?.time ?? time, text, streaming };
      this.#put(event.parent ?? null, item);
      if (text) this.#says = text;
    } else {
      const item: ThinkingItem = { kind: 'thinking', key, seq: old?.seq ?? seq, time: old?.time ?? time, text, streaming, endTime: time };
      this.#put(event.parent ?? null, item);
      if (text) this.#says = text;
    }
  }

  #toolCall(event: Extract<AgentEvent, { type: 'tool_call' }>, seq: number, time: number): void {
    this.#begin(time);
    const known = this.#tools.get(event.id);
    const key = known ?? `c:${event.id}`;
    const old = known ? (this.#get(known) as ToolItem | undefined) : undefined;
    this.#tools.set(event.id, key);
    this.#put(event.parent ?? null, {
      kind: 'tool', key, seq: old?.seq ?? seq, time: old?.time ?? time, id: event.id, name: event.name, tool: event.kind,
      title: event.title, input: event.input, ...(old?.ran === undefined ? {} : { asked: old.asked, ran: old.ran }), changes: event.changes ?? old?.changes ?? [],
      output: old?.output ?? '', state: old?.state ?? 'running', exitCode: old?.exitCode ?? null,
      endTime: old?.endTime ?? 0, children: old?.children ?? [],
    });
    if (!old || old.state === 'running') this.#open.add(key);
    this.#do(event.title);
  }

  #toolResult(event: Extract<AgentEvent, { type: 'tool_result' }>, seq: number, time: number): void {
    const key = this.#tools.get(event.id);
    const old = key ? (this.#get(key) as ToolItem | undefined) : undefined;
    if (!old || !key) {
      // The call lies on an older page: a card of its own until that page is loaded.
      const made = `c:${event.id}`;
      this.#tools.set(event.id, made);
      this.#put(event.parent ?? null, {
        kind: 'tool', key: made, seq, time, id: event.id, name: '', tool: 'other', title: '…', input: null, changes: [],
        output: clip(event.output), state: event.delta ? 'running' : event.is_error ? 'failed' : 'done',
        exitCode: event.exit_code ?? null, endTime: time, children: [],
      });
      return;
    }
    const output = clip(event.delta ? old.output + event.output : event.output || (event.is_error ? '' : old.output));
    const failed = event.is_error || (event.exit_code ?? 0) !== 0;
    const state = event.delta ? 'running' : old.state === 'denied' ? 'denied' : failed ? 'failed' : 'done';
    if (!event.delta) this.#open.delete(key);
    this.#replace(key, { ...old, output, state, exitCode: event.exit_code ?? old.exitCode, endTime: time });
  }

  #planned(entries: PlanEntry[], seq: number, time: number): void {
    this.plan = entries;
    const last = this.items[this.items.length - 1];
    const item: PlanItem = { kind: 'plan', key: last?.kind === 'plan' ? last.key : `p${seq}`, seq, time, entries, old: false };
    const before = this.#lastPlan ? this.#get(this.#lastPlan) : undefined;
    if (before?.kind === 'plan' && before.key !== item.key) this.#replace(before.key, { ...before, old: true });
    this.#lastPlan = item.key;
    this.#put(null, item);
    const now = entries.find((entry) => entry.status === 'in_progress');
    if (now) this.#do(now.content);
  }

  #asked(event: { type: 'approval' } & Approval, seq: number, time: number): void {
    const { type: _, ...approval } = event;
    if (this.#decisions.has(approval.id)) return;
    this.pending = [...this.pending, approval];
    this.#do(approval.title);
    const tool = approval.tool_call_id ? this.#tools.get(approval.tool_call_id) : undefined;
    const old = tool ? (this.#get(tool) as ToolItem | undefined) : undefined;
    if (tool && old) {
      this.#decisions.set(approval.id, { key: tool, approval });
      this.#replace(tool, { ...old, state: 'waiting', changes: old.changes.length ? old.changes : approval.changes ?? [] });
      return;
    }
    const key = `d:${approval.id}`;
    this.#decisions.set(approval.id, { key, approval });
    this.#add(null, { kind: 'decision', key, seq, time, approval, outcome: null, message: '' });
  }

  #resolved(id: string, outcome: Outcome, message: string, time: number, edited: { asked: unknown; ran: unknown } | null): void {
    const changed = edited ? { asked: edited.asked, ran: edited.ran } : {};
    this.pending = this.pending.filter((approval) => approval.id !== id);
    const decision = this.#decisions.get(id);
    const old = decision && this.#get(decision.key);
    if (!decision || !old) return;
    if (old.kind === 'decision') {
      this.#replace(decision.key, { ...old, outcome, message, ...changed });
    } else if (old.kind === 'tool' && old.state === 'waiting') {
      const refused = outcome === 'denied' || outcome === 'timed_out';
      const state = refused ? 'denied' : outcome === 'void' ? 'stopped' : 'running';
      this.#replace(decision.key, { ...old, ...changed, state, output: refused && message ? message : old.output, endTime: time });
    }
  }

  #error(message: string, retrying: boolean, seq: number, time: number): void {
    const last = this.items[this.items.length - 1];
    // Retries repeat themselves: one row that counts on, not ten.
    const key = last?.kind === 'error' && last.retrying ? last.key : `x${seq}`;
    this.#put(null, { kind: 'error', key, seq, time, message, retrying });
    this.#do(message);
  }

  /** Closes what still streams; with `stop` also the tools that never answered. */
  #settle(time: number, stop: boolean): void {
    for (const key of [...this.#open]) {
      const item = this.#get(key);
      if (item && (item.kind === 'text' || item.kind === 'thinking')) {
        this.#replace(key, { ...item, streaming: false });
        this.#open.delete(key);
      } else if (item?.kind === 'tool') {
        if (item.state === 'running' || (stop && item.state === 'waiting')) this.#replace(key, { ...item, state: 'stopped', endTime: time });
        this.#open.delete(key);
      }
    }
  }

  #get(key: string): Item | undefined {
    const place = this.#places.get(key);
    if (!place) return undefined;
    if (place.parent === null) return this.items[place.index];
    return (this.#get(place.parent) as ToolItem | undefined)?.children[place.index];
  }

  /** The list that holds `parent`'s items, copied if it was seen outside. */
  #writable(parent: string | null): Item[] {
    if (parent === null) {
      if (!this.#fresh.has(this.items)) {
        this.items = this.items.slice();
        this.#fresh.add(this.items);
      }
      return this.items;
    }
    const tool = this.#get(parent) as ToolItem;
    if (this.#fresh.has(tool.children)) return tool.children;
    const children = tool.children.slice();
    this.#fresh.add(children);
    this.#replace(parent, { ...tool, children });
    return children;
  }

  #put(parent: string | null, item: Item): void {
    if (this.#places.has(item.key)) this.#replace(item.key, item);
    else this.#add(parent, item);
  }

  #add(parent: string | null, item: Item): void {
    const holder = parent ? (this.#tools.get(parent) ?? null) : null;
    const list = this.#writable(holder);
    this.#places.set(item.key, { parent: holder, index: list.length });
    list.push(item);
  }

  #replace(key: string, item: Item): void {
    const place = this.#places.get(key);
    if (place) this.#writable(place.parent)[place.index] = item;
  }
}

/** The last line of `text` that holds something, at most 140 units. */
export function lastLine(text: string): string {
  const tail = text.slice(-600).trimEnd();
  const line = tail.slice(tail.lastIndexOf('\n') + 1).replace(/^[#>*\-\s]+|[*_`]+/g, '').trim();
  return line.length > 140 ? `${line.slice(0, 139)}…` : line;
}
