//! The machines of this device and what each of them says: agents, sessions, approvals. One live link each.

import { batch, computed, signal, type Signal } from '@preact/signals';
import { ApiError, call } from '../net/api';
import { Link, type Frame } from '../net/link';
import { loadMachines, ownMachine, saveMachines, showToken, type Machine } from '../net/machine';
import type { Info, Session, WaitingApproval } from '../net/types';

/** Most sessions of one machine that are kept in memory for the inbox. */
const KEEP = 1000;

/** Everything known of one machine. */
export class Room {
  readonly info = signal<Info | null>(null);
  readonly sessions = signal<ReadonlyMap<string, Session>>(new Map());
  readonly approvals = signal<readonly WaitingApproval[]>([]);
  readonly total = signal(0);
  /** Has the first snapshot come? */
  readonly ready = signal(false);
  readonly link: Link;
  #listeners = new Set<(frame: Frame) => void>();

  constructor(readonly machine: Machine) {
    this.link = new Link(machine, {
      sse: () => 'api/events',
      socket: () => 'api/events/ws',
      frame: (frame) => this.#frame(frame),
    });
  }

  start(): void {
    this.link.start();
    void this.refreshInfo();
  }

  stop(): void {
    this.link.stop();
  }

  /** Reads what is installed there; quietly keeps the old answer when that fails. */
  async refreshInfo(): Promise<void> {
    try {
      this.info.value = await call<Info>(this.machine, 'GET', 'api/info');
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    }
  }

  /** Hears frames of this machine (a session's view waits for its changes). Returns how to stop. */
  listen(hear: (frame: Frame) => void): () => void {
    this.#listeners.add(hear);
    return () => this.#listeners.delete(hear);
  }

  /** Takes a session object that an answer brought, ahead of the stream. */
  put(session: Session): void {
    const old = this.sessions.peek().get(session.id);
    if (old && old.last_seq > session.last_seq) return;
    const next = new Map(this.sessions.peek());
    next.set(session.id, session);
    this.sessions.value = next;
  }

  /** Forgets a session that was deleted. */
  remove(id: string): void {
    const next = new Map(this.sessions.peek());
    if (!next.delete(id)) return;
    this.sessions.value = next;
    this.approvals.value = this.approvals.peek().filter((approval) => approval.session_id !== id);
  }

  /** Takes an approval away that was decided, before the stream says so. */
  settle(id: string): void {
    batch(() => {
      this.approvals.value = this.approvals.peek().filter((approval) => approval.id !== id);
      for (const session of this.sessions.peek().values()) {
        if (!session.approvals.some((approval) => approval.id === id)) continue;
        const approvals = session.approvals.filter((approval) => approval.id !== id);
        this.put({ ...session, approvals, pending_approvals: approvals.length });
      }
    });
  }

  #frame(frame: Frame): void {
    batch(() => {
      switch (frame.type) {
        case 'snapshot': {
          const sessions = (frame['sessions'] ?? []) as Session[];
          this.sessions.value = new Map(sessions.slice(0, KEEP).map((session) => [session.id, session]));
          this.approvals.value = (frame['approvals'] ?? []) as WaitingApproval[];
          this.total.value = Number(frame['total'] ?? sessions.length);
          this.ready.value = true;
          if (!this.info.peek()) void this.refreshInfo();
          break;
        }
        case 'session': {
          const session = frame['session'] as Session;
          const next = new Map(this.sessions.peek());
          next.set(session.id, session);
          this.sessions.value = next;
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

/** Opens the rooms of all kept machines. */
export function openRooms(): void {
  const kept = loadMachines();
  const self = kept.find((machine) => machine.id === own.id);
  if (self) own.name = self.name;
  const others = kept.filter((machine) => machine.id !== own.id);
  elsewhere.value = others.filter((machine) => !reachable(machine));
  rooms.value = [own, ...others.filter(reachable)].map((machine) => new Room(machine));
  for (const room of rooms.value) room.start();
}

/** Adds a machine to this device. */
export function addMachine(machine: Machine): void {
  if (machine.id === own.id || loadMachines().some((kept) => kept.id === machine.id)) return;
  saveMachines([...loadMachines(), machine]);
  if (!reachable(machine)) {
    elsewhere.value = [...elsewhere.value, machine];
    return;
  }
  const room = new Room(machine);
  rooms.value = [...rooms.value, room];
  room.start();
}

/** Forgets a machine of this device. */
export function dropMachine(id: string): void {
  saveMachines(loadMachines().filter((machine) => machine.id !== id));
  rooms.value.find((room) => room.machine.id === id)?.stop();
  rooms.value = rooms.value.filter((room) => room.machine.id !== id);
  elsewhere.value = elsewhere.value.filter((machine) => machine.id !== id);
}

/** The room of a machine, the own one if that is not known. */
export const roomOf = (id: string | undefined): Room | undefined => rooms.value.find((room) => room.machine.id === id) ?? rooms.value[0];

/** How a machine is called: by the name given, else by its host. */
export const nameOf = (room: Room): string => {
  const given = room.machine.name;
  const host = room.info.value?.host_name;
  return given && given !== new URL(room.machine.base).hostname ? given : host || given;
};

/** Approvals that wait, on all machines. */
export const waiting = computed(() => rooms.value.reduce((sum, room) => sum + room.approvals.value.length, 0));

/** Keeps this device's list in step with the own machine's name, so that other pages of the origin find it. */
export function rememberOwn(name: string): void {
  if (!own.token && !/\/t\/[^/]+\/$/.test(own.base)) return;
  const kept = loadMachines();
  const named = { ...own, name };
  if (kept.some((machine) => machine.id === own.id && machine.name === name)) return;
  saveMachines([...kept.filter((machine) => machine.id !== own.id), named]);
}

/**
 * Does a request without the token still come to this machine? If not (another tab's token sits in the
 * cookie), the address bar shows the token again, so that a reload comes back here.
 */
export async function checkCookie(): Promise<void> {
  const info = rooms.peek()[0]?.info.peek();
  if (!own.token || !info) return;
  try {
    const bare = await call<Info>({ ...own, token: null }, 'GET', 'api/info', undefined, 8_000);
    showToken(own, bare.client_id !== info.client_id || bare.host_name !== info.host_name);
  } catch (error) {
    if (error instanceof ApiError && error.status > 0) showToken(own, true);
  }
}
