//! What keys are called on this machine.

/** The keys by which an approval is decided. */
export const DECIDE_KEY = /Mac|iPhone|iPad/.test(navigator.platform) ? '⌘↵' : 'Ctrl ↵';

/**
 * Does a key belong to letters that are still being put together (Chinese, Japanese, accents)? Enter then takes them and
 * Escape lets them go: neither is meant for the page. Safari tells the end of it before the key, and so only by its code.
 */
export const composes = (event: KeyboardEvent): boolean => event.isComposing || event.keyCode === 229;
