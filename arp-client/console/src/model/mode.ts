//! The permission mode that a session is in: the agent's own word before what was once asked for. Pure.

import type { Session } from '../net/types';
import type { Facts } from './timeline';
import { named } from './named';

const NAMES: Record<string, string> = {
  manual: 'default', ask: 'default', autoEdit: 'acceptEdits', auto_edit: 'acceptEdits', yolo: 'bypassPermissions',
};

/** An agent's name of a mode in our words; one that has none stays as it is. */
export function modeWord(word: string): string {
  // Codex says when it asks, and what its sandbox lets pass.
  const [, asks, sandbox] = /^([a-z-]+), ([a-z-]+)$/.exec(word) ?? [];
  if (asks === 'untrusted') return 'default';
  if (asks === 'on-request') return 'acceptEdits';
  if (asks === 'never' && sandbox === 'read-only') return 'plan';
  if (asks === 'never' && sandbox === 'danger-full-access') return 'bypassPermissions';
  return named(NAMES, word) ?? word;
}

/** While an agent runs, what it says of itself counts; else what it will be started with. */
export function modeOf(session: Session, facts: Facts): string {
  const lives = ['starting', 'running', 'waiting', 'idle'].includes(session.status);
  return modeWord((lives ? facts.mode : null) ?? session.permission_mode ?? 'default');
}
