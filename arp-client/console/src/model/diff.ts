//! Reads unified diffs for drawing. Pure; anything that is no diff is shown as plain lines.

export interface DiffLine { kind: 'add' | 'del' | 'same' | 'hunk'; text: string; old: number | null; new: number | null }

/** Splits hunks of a unified diff into lines with their numbers. File headers are dropped. */
export function parseDiff(diff: string): DiffLine[] {
  const lines: DiffLine[] = [];
  let old = 0;
  let now = 0;
  let inHunk = false;
  if (diff === '') return lines;
  for (const line of diff.replace(/\n$/, '').split('\n')) {
    const hunk = /^@@+ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@+ ?(.*)$/.exec(line);
    if (hunk) {
      old = Number(hunk[1]);
      now = Number(hunk[2]);
      inHunk = true;
      lines.push({ kind: 'hunk', text: hunk[3] ?? '', old: null, new: null });
    } else if (line.startsWith('@@')) {
      // Where in the file this stands is not known.
      old = now = 0;
      inHunk = true;
      lines.push({ kind: 'hunk', text: line.replace(/^@@ ?| ?@@$/g, ''), old: null, new: null });
    } else if (!inHunk && /^(---|\+\+\+|diff |index |new file|deleted file|old mode|new mode|similarity|rename )/.test(line)) {
      continue;
    } else if (line.startsWith('+')) {
      lines.push({ kind: 'add', text: line.slice(1), old: null, new: now ? now++ : null });
    } else if (line.startsWith('-')) {
      lines.push({ kind: 'del', text: line.slice(1), old: old ? old++ : null, new: null });
    } else if (line.startsWith('\\')) {
      continue;
    } else {
      lines.push({ kind: 'same', text: line.startsWith(' ') ? line.slice(1) : line, old: old ? old++ : null, new: now ? now++ : null });
    }
  }
  return lines;
}

/** How many lines come and go. */
export function countDiff(diff: string): { added: number; removed: number } {
  let added = 0;
  let removed = 0;
  for (const line of parseDiff(diff)) {
    if (line.kind === 'add') added++;
    else if (line.kind === 'del') removed++;
  }
  return { added, removed };
}
