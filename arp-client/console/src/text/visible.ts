//! Makes characters visible that hide or reorder what stands beside them, in what a person decides about: a command,
//! a diff, a path. `rm -rf \u202e…` must not read as something else.

/**
 * Controls but for tab and newline; marks of direction; spaces and joiners without width; fillers; tags. An emoji's
 * joiner is among them: in a command it is shown, in prose nobody calls this.
 */
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff9-\ufffb]|[\u{1d173}-\u{1d17a}\u{e0000}-\u{e01ef}]/gu;

/** The text with each hidden character as `‹U+202E›`. */
export function visible(text: string): string {
  // A line that ends as on Windows hides nothing.
  return text.replace(/\r\n/g, '\n').replace(HIDDEN, (character) => `‹U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}›`);
}

/** Does it hold such characters? */
export const hides = (text: string): boolean => text.replace(/\r\n/g, '\n').search(HIDDEN) >= 0;
