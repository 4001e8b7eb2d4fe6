//! Deciding approvals: the request, and what a decision elsewhere means.

import { ApiError, call, seg } from '../net/api';
import { t } from '../i18n';
import type { FilePreview } from '../model/events';
import type { WaitingApproval } from '../net/types';
import { say } from '../ui/kit';
import type { Room } from './machines';

/** What can be answered. */
export type Decision =
  | { decision: 'allow'; for_session?: boolean; updated_input?: unknown; answers?: Record<string, string>; permission_mode?: string }
  | { decision: 'deny'; message?: string; interrupt?: boolean };

/** Longest wait for a look at the files, in milliseconds; then it is said that there was none. */
const LOOK_TIMEOUT = 8_000;

/** What an approval would do to files, as they are now; null where that cannot be told. */
export async function lookAtFiles(room: Room, id: string): Promise<FilePreview[] | null> {
  try {
    const answer = await call<{ approval: WaitingApproval; files?: FilePreview[] }>(room.machine, 'GET', `api/approvals/${seg(id)}`, undefined, LOOK_TIMEOUT);
    return answer.files ?? null;
  } catch {
    return null;
  }
}

/** Sends the decision about the approval `id`, and about no other. Resolves to false when it must be tried again. */
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
