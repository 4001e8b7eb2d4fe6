//! Begins: theme and language onto the document, the machines' links, the page.

import { effect } from '@preact/signals';
import { render } from 'preact';
import { App, fetchLater } from './app';
import { lang, startClocks } from './i18n';
import { listenKeys } from './keys';
import { theme } from './model/prefs';
import { watchAttention } from './state/attention';
import { checkCookie, openRooms, rooms } from './state/machines';
import { nameApp } from './state/install';
import { watchOutbox } from './state/outbox';
import { watchOverview } from './state/overview';
import { followLinks } from './state/route';
import './style/base.css';
import './style/shell.css';
import './style/session.css';
import './style/parts.css';

effect(() => {
  document.documentElement.lang = lang.value === 'zh' ? 'zh-CN' : 'en';
});
effect(() => {
  document.documentElement.dataset['theme'] = theme.value;
});

startClocks();
openRooms();
watchOutbox();
watchOverview();
followLinks();
watchAttention();
listenKeys();
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') void checkCookie();
});

render(<App />, document.getElementById('app') as HTMLElement);

// Parts that are needed later come while nothing else is to be done.
const idle = globalThis.requestIdleCallback ?? ((work: () => void) => setTimeout(work, 1500));
let fetched = false;
effect(() => {
  if (fetched || !rooms.value.some((room) => room.ready.value)) return;
  fetched = true;
  idle(() => {
    fetchLater();
    // Without it the app opens the machine of the cookie.
    void nameApp().catch(() => undefined);
  });
});

if ('serviceWorker' in navigator && isSecureContext && import.meta.env.PROD) {
  interface Policies { createPolicy(name: string, rules: { createScriptURL(url: string): string }): { createScriptURL(url: string): string } }
  const policies = (globalThis as { trustedTypes?: Policies }).trustedTypes;
  // The one script address that is not written in the page; it is a constant.
  const address = policies?.createPolicy('arp', { createScriptURL: () => './sw.js' }).createScriptURL('') ?? './sw.js';
  void navigator.serviceWorker.register(address, { scope: './' }).catch(() => undefined);
}
