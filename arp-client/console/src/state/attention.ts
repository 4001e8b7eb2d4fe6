//! Calls for the user when the page is not looked at: title, badge of the installed app, notification.

import { effect } from '@preact/signals';
import { t } from '../i18n';
import { notify } from '../model/prefs';
import { visible } from '../text/visible';
import { findPast } from './overview';
import { hrefOf, route } from './route';
import { roomOf, rooms, waiting } from './machines';

/** Approvals that were told of already, and the notice of each. */
const told = new Map<string, Notification | null>();

/** What the page shows, as the title of its tab. */
function placeName(): string {
  const at = route.value;
  if (at.name === 'session') {
    const session = roomOf(at.machine)?.sessions.value.get(at.id);
    return session ? visible(session.title || session.first_message || t.untitled).slice(0, 80) : '';
  }
  if (at.name === 'history') {
    const room = roomOf(at.machine);
    const past = room && findPast(room, at.id);
    return past ? visible(past.title || past.first_message || t.untitled).slice(0, 80) : t.history;
  }
  if (at.name === 'files') return at.path.split('/').pop() || t.files;
  return at.name === 'settings' ? t.settings : at.name === 'new' ? t.newSession : '';
}

/** Starts watching. */
export function watchAttention(): void {
  effect(() => {
    const count = waiting.value;
    document.title = `${count ? `(${count}) ` : ''}${[placeName(), 'arp'].filter(Boolean).join(' · ')}`;
    const app = navigator as Navigator & { setAppBadge?: (n: number) => Promise<void>; clearAppBadge?: () => Promise<void> };
    // Not every browser allows it; that is no fault.
    void (count ? app.setAppBadge?.(count) : app.clearAppBadge?.())?.catch(() => undefined);
  });
  effect(() => {
    const waits = rooms.value.flatMap((room) => room.approvals.value.map((approval) => ({ room, approval })));
    const ids = new Set(waits.map(({ approval }) => approval.id));
    for (const [id, notice] of told) {
      if (ids.has(id)) continue;
      if (notice) notice.close();
      else void navigator.serviceWorker?.getRegistration().then((worker) => worker?.getNotifications({ tag: id })).then((list) => list?.forEach((one) => one.close()), () => undefined);
      told.delete(id);
    }
    for (const { room, approval } of waits) {
      if (told.has(approval.id)) continue;
      told.set(approval.id, null);
      if (document.visibilityState === 'visible' || notify.peek() !== 'on') continue;
      if (!('Notification' in globalThis) || Notification.permission !== 'granted') continue;
      const href = hrefOf({ name: 'session', machine: room.machine.id, id: approval.session_id ?? `~${approval.id}` });
      const text = { body: `${approval.session_title ?? ''}\n${visible(approval.title)}`.trim(), tag: approval.id, icon: './icon-192.png' };
      try {
        const notice = new Notification(t.notifTitle, text);
        notice.onclick = (): void => {
          focus();
          location.hash = href;
          notice.close();
        };
        told.set(approval.id, notice);
      } catch {
        // Android shows notices only through the service worker.
        void navigator.serviceWorker?.ready.then((worker) => worker.showNotification(t.notifTitle, { ...text, data: href })).catch(() => undefined);
      }
    }
  });
}
