//! Controls of writing direction end with their line: one that an agent left open would turn everything after it.

const OPENERS = /[\u202a\u202b\u202d\u202e\u2066-\u2068]/;
const CONTROLS = /[\u202a-\u202e\u2066-\u2069]/g;

/** Does a text open such a control at all? */
export const turns = (text: string): boolean => OPENERS.test(text);

/** What closes the controls that a line leaves open, in the order in which they must be closed. */
function closers(line: string): string {
  const open: string[] = [];
  for (const [control] of line.matchAll(CONTROLS)) {
    // PDF ends an embedding or override, PDI an isolate and all that was opened within it.
    if (control === '\u202c') {
      if (open[open.length - 1] === '\u202c') open.pop();
    } else if (control === '\u2069') {
      const at = open.lastIndexOf('\u2069');
      if (at >= 0) open.length = at;
    } else open.push(control >= '\u2066' ? '\u2069' : '\u202c');
  }
  return open.reverse().join('');
}

/** The text with each line's open controls closed at its end. */
export function closeLines(text: string): string {
  if (!turns(text)) return text;
  return text.split('\n').map((line) => (turns(line) ? line + closers(line) : line)).join('\n');
}
