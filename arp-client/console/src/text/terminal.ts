//! What a terminal would show of a program's output, as plain text: colours gone, a line that was drawn over and over
//! (progress) as it stands in the end.

import { closeLines } from './bidi';

/** Colours, titles, movements: `ESC [ … letter`, `ESC ] … BEL`, and other short ones. */
const CODES = /\u001b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[()][0-9A-Za-z]|[=>78cDEHM])/g;
/** Erases from the cursor (or all) of a line. */
const ERASE = /\u001b\[[02]?K/;

export const stripAnsi = (text: string): string => text.replace(CODES, '');

/** One line with its carriage returns: what comes later is written over what was there. */
function overwritten(line: string): string {
  let shown = '';
  for (const part of line.split('\r')) {
    const erased = ERASE.test(part);
    const text = stripAnsi(part);
    if (!text && !erased) continue;
    shown = erased ? text : text + shown.slice(text.length);
  }
  return shown;
}

/** The text as it stands in the end. */
export function terminal(text: string): string {
  const plain = text.includes('\r') ? text.split('\n').map((line) => (line.includes('\r') ? overwritten(line) : line)).join('\n') : text;
  return closeLines(stripAnsi(plain));
}
