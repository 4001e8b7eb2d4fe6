//! Going where an answer leads. Answers come late on some lines: whoever went elsewhere meanwhile is not called back.

import { t } from '../i18n';
import type { Session } from '../net/types';
import { visible } from '../text/visible';
import { say } from '../ui/kit';
import { go, hrefOf, route, type Route } from './route';
import type { Room } from './machines';

/** Goes to a place, and tells whether it did: it does not if the user is no longer where this was made. */
export function fromHere(): (to: Route, replace?: boolean) => boolean {
  const from = hrefOf(route.peek());
  return (to, replace = false) => {
    if (hrefOf(route.peek()) !== from) return false;
    go(to, replace);
    return true;
  };
}

/** Takes the session that an answer brought and shows it; to whoever is elsewhere by then it is offered. */
export function toSession(room: Room): (session: Session, replace?: boolean) => void {
  const arrive = fromHere();
  return (session, replace) => {
    room.put(session);
    const to: Route = { name: 'session', machine: room.machine.id, id: session.id };
    if (arrive(to, replace)) return;
    const name = visible(session.title || session.first_message || '').slice(0, 60);
    say(name ? `${t.started}: ${name}` : t.started, false, { name: t.openLive, run: () => go(to) });
  };
}
