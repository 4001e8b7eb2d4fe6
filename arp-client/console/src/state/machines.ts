//! The machines of this device and what each of them says: agents, sessions, approvals. One live link each.

import { batch, computed, effect, signal, type Signal } from '@preact/signals';
import { ApiError, call } from '../net/api';
import { Link, type Frame } from '../net/link';
import { noteBaseline } from '../model/prefs';
import { idOfEdge, idsOfTab, keepForTab, loadMachines, ownMachine, saveMachines, showToken, type Machine } from '../net/machine';
import type { FsRoots, Info, Session, Tunnel, WaitingApproval } from '../net/types';

/** Most sessions of one machine that are kept in memory for the inbox. */
const KEEP = 1000;
/** While another machine answers, the right one is looked for again after this, in milliseconds. */
const STRANGER_PAUSE = 15_000;
/** What is installed there is asked for again after this, if it could not be told, each time later, in milliseconds. */
const INFO_PAUSE = 3_000;
const LONGEST_INFO_PAUSE = 60_000;
/** Sessions that tell of themselves are shown this often at most, in milliseconds. */
const SHOW_PAUSE = 100;

let made = 0;

/** Everything known of one machine. */
export class Room {
  /** Tells rooms apart as long as the page lives. The machine's id does not: it changes when its edge is first known. */
  readonly key = `room${++made}`;
  /** Ids that lead here too, those that a link or a choice from before may still have. */
  readonly #names = new Set<string>();
  readonly info = signal<Info | null>(null);
  readonly sessions = signal<ReadonlyMap<string, Session>>(new Map());
  readonly approvals = signal<readonly WaitingApproval[]>([]);
  readonly total = signal(0);
  /** Directories whose files are served there; null while that is not known. */
  readonly roots = signal<readonly string[] | null>(null);
  /** Who answers at this address in place of the machine that is kept, until the user says what that means. */
  readonly stranger = signal<Info | null>(null);
  /** Has the first snapshot come? */
  readonly ready = signal(false);
  readonly link: Link;
  #listeners = new Set<(frame: Frame) => void>();
  #unwatch: () => void = () => undefined;
  #again: ReturnType<typeof setTimeout> | undefined;
  /** How often it was asked in vain what is installed there. */
  #asked = 0;
  /** Sessions that told of themselves and are not shown yet. */
  #told = new Map<string, Session>();
  #showing: ReturnType<typeof setTimeout> | undefined;
  #shown = 0;

  constructor(readonly machine: Machine) {
    this.link = new Link(machine, {
      sse: () => 'api/events',
      socket: () => 'api/events/ws',
      frame: (frame) => this.#frame(frame),
    });
  }

  start(): void {
    this.link.start();
    // While the line is down because another machine answers, it is asked who that is.
    this.#unwatch();
    this.#unwatch = effect(() => {
      const status = this.link.status.value;
      if (status.state === 'down' && status.trouble === 'changed') void this.refreshInfo();
    });
    void this.refreshInfo();
  }

  stop(): void {
    this.#unwatch();
    clearTimeout(this.#again);
    this.#told.clear();
    this.#show();
    this.link.stop();
  }

  /** Reads what is installed there; quietly keeps the old answer when that fails. */
  async refreshInfo(): Promise<void> {
    try {
      const info = await call<Info>(this.machine, 'GET', 'api/info');
      // An edge that gives no name, or does not look whom a request is meant for, is compared here.
      if (this.machine.edge && info.edge_id !== this.machine.edge) return this.#meet(info);
      this.info.value = info;
      this.#asked = 0;
      remember(this);
      if (this.stranger.peek()) {
        // The machine that was meant is back.
        this.machine.held = false;
        this.stranger.value = null;
        this.link.start();
      }
      if (info.edge_id && !this.machine.edge) pin(this, info.edge_id);
      if (info.fs_enabled) void this.#readRoots();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.code === 'other_edge') return this.#who();
      // A line that comes asks by itself; while it stands nothing else does.
      if (this.info.peek() || this.link.status.peek().state !== 'live') return;
      clearTimeout(this.#again);
      this.#again = setTimeout(() => void this.refreshInfo(), Math.min(LONGEST_INFO_PAUSE, INFO_PAUSE * 2 ** this.#asked++));
    }
  }

  /** Another machine answers: asks it who it is. */
  async #who(): Promise<void> {
    try {
      this.#meet(await call<Info>({ ...this.machine, edge: null }, 'GET', 'api/info'));
    } catch {
      // The link goes on trying, and this is asked again with it.
    }
  }

  #meet(info: Info): void {
    this.machine.held = true;
    this.stranger.value = info;
    this.link.stop();
    clearTimeout(this.#again);
    this.#again = setTimeout(() => this.stranger.peek() && void this.refreshInfo(), STRANGER_PAUSE);
    this.#told.clear();
    batch(() => {
      this.ready.value = false;
      this.sessions.value = new Map();
      this.approvals.value = [];
    });
  }

  /** Is this an id of the machine, or was it one? */
  is(id: string): boolean {
    const { machine } = this;
    return machine.id === id || machine.alias === id || this.#names.has(id);
  }

  /** All ids that lead here. */
  get ids(): string[] {
    return [this.machine.id, this.machine.alias, ...this.#names];
  }

  /** From now on these ids lead here, whatever the machine's become. */
  answerTo(ids: readonly string[]): void {
    for (const id of ids) this.#names.add(id);
  }

  /** The user says that the machine that answers now is the right one. */
  accept(): void {
    const info = this.stranger.peek();
    if (!info) return;
    this.machine.held = false;
    this.machine.edge = null;
    // What was meant for the other one does not come here.
    this.machine.id = this.machine.alias;
    this.#names.clear();
    // A name that was given was given to the other one.
    this.machine.given = false;
    this.stranger.value = null;
    this.info.value = info;
    remember(this);
    if (info.edge_id) pin(this, info.edge_id);
    else keep(this.machine);
    this.start();
  }

  async #readRoots(): Promise<void> {
    try {
      const answer = await call<FsRoots>(this.machine, 'GET', 'api/fs');
      this.roots.value = answer.roots.map(({ path }) => path);
    } catch {
      // Files are then offered as before; opening them tells what is wrong.
    }
  }

  /** Hears frames of this machine (a session's view waits for its changes). Returns how to stop. */
  listen(hear: (frame: Frame) => void): () => void {
    this.#listeners.add(hear);
    return () => this.#listeners.delete(hear);
  }

  /** Takes a session object that an answer brought, ahead of the stream. */
  put(session: Session): void {
    this.#show();
    const old = this.sessions.peek().get(session.id);
    if (old && old.last_seq > session.last_seq) return;
    const next = new Map(this.sessions.peek());
    next.set(session.id, session);
    this.sessions.value = next;
  }

  /** Forgets a session that was deleted. */
  remove(id: string): void {
    this.#show();
    const next = new Map(this.sessions.peek());
    if (!next.delete(id)) return;
    this.sessions.value = next;
    this.approvals.value = this.approvals.peek().filter((approval) => approval.session_id !== id);
  }

  /** Takes an approval away that was decided, before the stream says so. */
  settle(id: string): void {
    this.#show();
    batch(() => {
      this.approvals.value = this.approvals.peek().filter((approval) => approval.id !== id);
      for (const session of this.sessions.peek().values()) {
        if (!session.approvals.some((approval) => approval.id === id)) continue;
        const approvals = session.approvals.filter((approval) => approval.id !== id);
        this.put({ ...session, approvals, pending_approvals: approvals.length });
      }
    });
  }

  /**
   * Sessions tell of themselves many times a second, fifty of them perhaps, and each time the list is drawn anew: what
   * comes right after another is shown with those that follow. All else is taken as it comes, after what came before it.
   */
  #tell(session: Session): void {
    this.#told.set(session.id, session);
    const wait = this.#shown + SHOW_PAUSE - performance.now();
    if (wait <= 0) this.#show();
    else this.#showing ??= setTimeout(() => this.#show(), wait);
  }

  #show(): void {
    clearTimeout(this.#showing);
    this.#showing = undefined;
    if (!this.#told.size) return;
    this.#shown = performance.now();
    this.sessions.value = new Map([...this.sessions.peek(), ...this.#told]);
    this.#told.clear();
  }

  #frame(frame: Frame): void {
    if (frame.type !== 'session') this.#show();
    batch(() => {
      switch (frame.type) {
        case 'snapshot': {
          const sessions = ((frame['sessions'] ?? []) as Session[]).slice(0, KEEP);
          this.total.value = Number(frame['total'] ?? sessions.length);
          const fresh = new Map(sessions.map((session) => [session.id, session]));
          // It holds the newest: older ones that were paged in, or are open, stay.
          const oldest = sessions.reduce((time, { updated_at }) => (updated_at < time ? updated_at : time), '~');
          if (this.total.value > sessions.length) {
            for (const [id, session] of this.sessions.peek()) if (!fresh.has(id) && session.updated_at < oldest) fresh.set(id, session);
          }
          this.sessions.value = fresh;
          this.approvals.value = (frame['approvals'] ?? []) as WaitingApproval[];
          noteBaseline(sessions);
          this.ready.value = true;
          if (!this.info.peek() || this.machine.edge) void this.refreshInfo();
          break;
        }
        case 'session': {
          this.#tell(frame['session'] as Session);
          break;
        }
        case 'session_removed':
          this.remove(String(frame['session_id']));
          break;
        case 'approval': {
          const approval = frame['approval'] as WaitingApproval;
          this.approvals.value = [...this.approvals.peek().filter((other) => other.id !== approval.id), approval];
          break;
        }
        case 'approval_resolved':
          this.approvals.value = this.approvals.peek().filter((approval) => approval.id !== frame['id']);
          break;
        // What a session's requests came to, at the gateway.
        case 'usage_update':
        case 'upstream': {
          const old = this.sessions.peek().get(String(frame['session_id']));
          if (!old) break;
          const told = (frame['gateway'] ?? null) as Session['gateway'];
          const gateway = told ?? (old.gateway ? { ...old.gateway, upstream: String(frame['upstream'] ?? old.gateway.upstream) } : null);
          if (gateway) this.sessions.value = new Map(this.sessions.peek()).set(old.id, { ...old, gateway });
          break;
        }
        case 'tunnel': {
          const info = this.info.peek();
          if (info) this.info.value = { ...info, tunnel: (frame['tunnel'] ?? null) as Tunnel | null };
          break;
        }
      }
    });
    for (const hear of this.#listeners) hear(frame);
  }
}

/** The machine this page came from. */
export const own: Machine = ownMachine();
/** All rooms, the page's own first. */
export const rooms: Signal<readonly Room[]> = signal([]);

/** A machine on another origin can be shown in the list only over TLS (the page's policy says so). */
export const reachable = (machine: Machine): boolean =>
  new URL(machine.base).origin === location.origin || machine.base.startsWith('https:');

/** The kept machines that can only be opened as pages of their own. */
export const elsewhere = signal<readonly Machine[]>([]);

/** Do these two lead to the same machine, as far as is known? */
const same = (a: Machine, b: Machine): boolean => a.alias === b.alias || (a.edge !== null && a.edge === b.edge);

/** Opens the rooms of all kept machines, each machine once. */
export function openRooms(): void {
  const kept = loadMachines();
  if (!own.token && own.edge) adopt(own.edge);
  const self = kept.find((machine) => machine.alias === own.alias);
  if (self?.edge) Object.assign(own, { edge: self.edge, id: self.id });
  if (self) Object.assign(own, { name: self.name, given: self.given });
  const others: Machine[] = [];
  for (const machine of kept) if (![own, ...others].some((one) => same(one, machine))) others.push(machine);
  elsewhere.value = others.filter((machine) => !reachable(machine));
  rooms.value = [own, ...others.filter(reachable)].map((machine) => new Room(machine));
  rooms.value[0]?.answerTo(idsOfTab(own.base));
  for (const room of rooms.value) room.start();
}

/** Writes a kept machine anew; one that is reached by the page's cookie alone is kept by its tab. */
function keep(machine: Machine): void {
  if (machine === own) keepForTab(machine, rooms.peek().find((room) => room.machine === own)?.ids ?? []);
  if (machine === own && !machine.token && !/\/t\/[^/]+\/$/.test(machine.base)) return;
  const kept = loadMachines();
  const index = kept.findIndex((one) => one.alias === machine.alias);
  if (index < 0) kept.push(machine);
  else kept[index] = machine;
  saveMachines(kept);
}

/** The page came by its cookie, which other tabs change: a token of this device for the same machine stays. */
function adopt(edge: string): boolean {
  const twin = loadMachines().find((one) => one.edge === edge && one.base === own.base && one.token);
  if (twin) Object.assign(own, { token: twin.token, alias: twin.alias, name: twin.name, given: twin.given });
  return Boolean(twin);
}

/** Notes whose address this is. What turns out to be a machine that is known already becomes one with it. */
function pin(room: Room, edge: string): void {
  const { machine } = room;
  room.answerTo(room.ids);
  machine.edge = edge;
  machine.id = idOfEdge(edge);
  if (machine === own && !machine.token && adopt(edge)) room.link.resync();
  keep(machine);
  const list = rooms.peek();
  const twins = list.filter((one) => one !== room && one.machine.edge === edge);
  // The page's own stays, else the one that was there first.
  const [stays, ...go] = [room, ...twins].sort((a, b) => list.indexOf(a) - list.indexOf(b));
  for (const one of go) {
    one.stop();
    stays?.answerTo(one.ids);
  }
  if (stays) rooms.value = list.filter((one) => !go.includes(one));
}

/** Adds a machine to this device. */
export function addMachine(machine: Machine): void {
  if (machine.alias === own.alias || loadMachines().some((kept) => kept.alias === machine.alias)) return;
  saveMachines([...loadMachines(), machine]);
  if (!reachable(machine)) {
    elsewhere.value = [...elsewhere.value, machine];
    return;
  }
  const room = new Room(machine);
  rooms.value = [...rooms.value, room];
  room.start();
}

/** Forgets a machine of this device, by whatever token it was reached. */
export function dropMachine(machine: Machine): void {
  saveMachines(loadMachines().filter((kept) => !same(kept, machine)));
  for (const room of rooms.value) if (room.machine === machine) room.stop();
  rooms.value = rooms.value.filter((room) => room.machine !== machine);
  elsewhere.value = elsewhere.value.filter((one) => one !== machine);
}

/** Gives a machine a name of the user's choice; an empty one gives its own back. */
export function renameMachine(room: Room, name: string): void {
  const { machine } = room;
  machine.given = Boolean(name);
  machine.name = name || autoName(room);
  keep(machine);
  rooms.value = [...rooms.value];
}

/** The room of a machine; the page's own if none is named, none if that one is not kept here. */
export const roomOf = (id: string | undefined): Room | undefined =>
  id ? rooms.value.find((room) => room.is(id)) : rooms.value[0];

/** What a machine calls itself: its client id, unless that is a long number made from other things. */
function autoName(room: Room): string {
  const info = room.info.value;
  const id = info?.client_id ?? '';
  return (/^[0-9A-F]{32}$/i.test(id) ? '' : id) || info?.host_name || room.machine.name;
}

/** How a machine is called: by the name given here, else as it calls itself. */
export const nameOf = (room: Room): string => {
  const { name, given, base } = room.machine;
  // Lists of older consoles do not say which names were given.
  const chosen = given ?? (name !== new URL(base).hostname && name !== room.info.value?.host_name && Boolean(room.info.value));
  return chosen && name ? name : autoName(room);
};

/** Keeps how a machine calls itself: for when it is away, and for other pages of this origin. */
function remember(room: Room): void {
  const { machine } = room;
  const name = nameOf(room);
  machine.given ??= name !== autoName(room);
  if (machine.name === name && loadMachines().some((kept) => kept.alias === machine.alias && kept.name === name)) return;
  machine.name = name;
  keep(machine);
}

/** Can its gateway's pages be opened? */
export const hasGateway = (room: Room): boolean => Boolean(room.info.value?.gateway);

/** Approvals that wait, on all machines. */
export const waiting = computed(() => rooms.value.reduce((sum, room) => sum + room.approvals.value.length, 0));

/**
 * Does a request without the token still come to this machine? If not (another tab's token sits in the
 * cookie), the address bar shows the token again, so that a reload comes back here.
 */
export async function checkCookie(): Promise<void> {
  const info = rooms.peek()[0]?.info.peek();
  if (!own.token || !info) return;
  try {
    const bare = await call<Info>({ ...own, token: null, edge: null }, 'GET', 'api/info', undefined, 8_000);
    showToken(own, info.edge_id ? bare.edge_id !== info.edge_id : bare.host_name !== info.host_name);
  } catch (error) {
    if (error instanceof ApiError && error.status > 0) showToken(own, true);
  }
}
