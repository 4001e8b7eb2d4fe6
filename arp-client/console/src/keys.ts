//! The keyboard on a desktop. Keys that type belong to fields; these work elsewhere.

import { go } from './state/route';
import { openSearch, step } from './screens/Inbox';
import { signal } from '@preact/signals';
import { copy } from './ui/kit';

/** Is the command palette open? */
export const paletteOpen = signal(false);

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

/** Starts listening. */
export function listenKeys(): void {
  addEventListener('keydown', (event) => {
    if (event.isComposing || event.defaultPrevented) return;
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
      case 'a':
      case 'd':
        // A key that is held down must not answer the next question too.
        if (event.repeat) return;
        dispatchEvent(new CustomEvent('arp-decide', { detail: event.key }));
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
