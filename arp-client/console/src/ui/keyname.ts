//! What keys are called on this machine.

/** The keys by which an approval is decided. */
export const DECIDE_KEY = /Mac|iPhone|iPad/.test(navigator.platform) ? '⌘↵' : 'Ctrl ↵';
