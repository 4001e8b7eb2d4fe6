//! Deciding approvals: the request, and what a decision elsewhere means.

import { ApiError, call, seg } from '../net/api';
import { t } from '../i18n';
import { say } from '../ui/kit';
import type { Room } from './machines';

/** What can be answered. */
export type Decision =
  | { decision: 'allow'; for_session?: boolean; updated_input?: unknown; answers?: Record<string, string> }
  | { decision: 'deny'; message?: string; interrupt?: boolean };

/** Sends a decision. Resolves to false when it must be tried again. */
export async function decide(room: Room, id: string, decision: Decision): Promise<boolean> {
  try {
    await call(room.machine, 'POST', `api/approvals/${seg(id)}`, decision);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.code === 'approval_resolved' || error.code === 'approval_not_found') {
      say(t.alreadyDecided);
      room.settle(id);
      return true;
    }
    throw error;
  }
  room.settle(id);
  return true;
}
