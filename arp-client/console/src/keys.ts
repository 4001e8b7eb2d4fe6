//! The keyboard on a desktop. Keys that type belong to fields; these work elsewhere.

import { go } from './state/route';
import { openSearch, step } from './screens/Inbox';
import { signal } from '@preact/signals';
import { composes } from './ui/keyname';
import { copy } from './ui/kit';

/** Is the command palette open? */
export const paletteOpen = signal(false);

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

/** Whoever typed so lately is still typing, though the field may be gone: milliseconds. */
const STILL_TYPING = 1_000;
let typedAt = -Infinity;
const justTyped = (): boolean => performance.now() - typedAt < STILL_TYPING;

/** Allows what is asked, unless the key belongs to a text that is being written. */
function decides(event: KeyboardEvent): void {
  const { target } = event;
  const field = typing(target) ? (target as HTMLElement) : null;
  const text = field instanceof HTMLTextAreaElement || field instanceof HTMLInputElement ? field.value : '';
  if (field && (text.trim() || field.closest('.approval'))) return;
  if (event.repeat || justTyped() || document.querySelector('dialog[open]')) return;
  event.preventDefault();
  dispatchEvent(new CustomEvent('arp-decide', { detail: { what: 'allow', at: event.timeStamp } }));
}

/** Starts listening. */
export function listenKeys(): void {
  // Whatever way a text came into a field: keys, a phone's keyboard, dictation.
  for (const type of ['input', 'compositionend', 'compositionstart']) {
    addEventListener(type, (event) => {
      if (typing(event.target)) typedAt = performance.now();
    }, true);
  }
  addEventListener('keydown', (event) => {
    if (composes(event) || event.defaultPrevented) return;
    if ((event.ctrlKey || event.metaKey) && event.key === 'Enter') {
      decides(event);
      return;
    }
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'k') {
      event.preventDefault();
      paletteOpen.value = true;
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || document.querySelector('dialog[open]')) return;
    switch (event.key) {
      case 'j':
        step(1);
        break;
      case 'k':
        step(-1);
        break;
      case 'd':
        // No letter decides: this one only opens the field for a reason.
        if (event.repeat || justTyped()) return;
        dispatchEvent(new CustomEvent('arp-decide', { detail: { what: 'reason', at: event.timeStamp } }));
        break;
      case 'n':
        go({ name: 'new' });
        break;
      case '/':
        openSearch();
        break;
      case 'r':
        dispatchEvent(new Event('arp-reply'));
        break;
      default:
        return;
    }
    event.preventDefault();
  });
  // Copy buttons of code blocks come from cleaned HTML and have no handlers of their own.
  addEventListener('click', (event) => {
    const button = event.target instanceof Element ? event.target.closest('button.copy') : null;
    const text = button?.closest('.code')?.querySelector('code')?.textContent;
    if (button && text) void copy(text);
  });
}
