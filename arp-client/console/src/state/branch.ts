//! Another branch of a session: a copy that goes its own way. Also the way out when the session itself is in use
//! elsewhere, in a terminal perhaps.

import { t } from '../i18n';
import { ApiError, call, seg } from '../net/api';
import type { Session } from '../net/types';
import { toSession } from './arrive';
import type { Room } from './machines';

/** What a refusal says of a session that somebody else has open. */
export const IN_USE = 'session_in_use';

/** The way out of a session that is in use: `open` opens another branch of it. */
export const branchOut = (error: unknown, open: () => void): { name: string; run(): void } | undefined =>
  error instanceof ApiError && error.code === IN_USE ? { name: t.openBranch, run: open } : undefined;

/** Can another branch of this session be opened? */
export const canBranch = (room: Room, session: Session): boolean =>
  Boolean(room.info.value?.agents.find(({ executor }) => executor === session.executor)?.capabilities.fork);

/** Opens another branch and goes there, after `then`. The same `client_id` makes no second one. */
export async function branch(room: Room, id: string, more: { prompt?: string; client_id?: string } = {}, then?: () => void): Promise<void> {
  const arrive = toSession(room);
  const { session } = await call<{ session: Session }>(room.machine, 'POST', `api/sessions/${seg(id)}/fork`, more, 60_000);
  then?.();
  arrive(session);
}
