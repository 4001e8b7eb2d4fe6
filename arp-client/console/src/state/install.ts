//! The installed app opens the machine that it was installed from: its manifest names that machine's token, because
//! an app has neither this tab's memory nor, on some systems, this browser's cookies.

import { withToken } from '../net/machine';
import { own } from './machines';

/** Puts a manifest of this machine in place of the one that all share. */
export async function nameApp(): Promise<void> {
  const link = document.querySelector<HTMLLinkElement>('link[rel=manifest]');
  if (!link || !own.token || link.href.startsWith('data:')) return;
  const answer = await fetch('./manifest.webmanifest', { credentials: 'same-origin' });
  const manifest = (await answer.json()) as { icons: { src: string }[] };
  const at = (path: string): string => new URL(path, own.base).href;
  const named = {
    ...manifest,
    // One app a machine: without a name of its own each would take the place of the other.
    id: at(`./?app=${own.id}`),
    start_url: withToken(own.base, own.token),
    scope: own.base,
    icons: manifest.icons.map((icon) => ({ ...icon, src: at(icon.src) })),
  };
  link.href = `data:application/manifest+json,${encodeURIComponent(JSON.stringify(named))}`;
}
