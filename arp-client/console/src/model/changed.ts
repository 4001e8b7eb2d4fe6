//! The files that a session changed, as its rows tell. Pure.

import { countDiff } from './diff';
import type { Item, ToolItem } from './timeline';

/** One file: how many lines came and went in all its changes, and the row that changed it last. */
export interface Changed { path: string; added: number; removed: number; key: string }

/** Counted once for each row that does not change any more. */
const counts = new WeakMap<ToolItem, { path: string; added: number; removed: number }[]>();

function of(item: ToolItem): { path: string; added: number; removed: number }[] {
  let known = counts.get(item);
  if (!known) counts.set(item, (known = item.changes.map(({ path, diff }) => ({ path, ...countDiff(diff) }))));
  return known;
}

/** Those that were made (not refused, not asked for only), newest last. `row` is the row of the main list. */
export function changedFiles(items: readonly Item[]): Changed[] {
  const found = new Map<string, Changed>();
  const walk = (list: readonly Item[], row: string): void => {
    for (const item of list) {
      if (item.kind !== 'tool') continue;
      const key = row || item.key;
      if (item.state === 'done') {
        for (const { path, added, removed } of of(item)) {
          const old = found.get(path);
          found.delete(path);
          found.set(path, { path, added: added + (old?.added ?? 0), removed: removed + (old?.removed ?? 0), key });
        }
      }
      if (item.children.length) walk(item.children, key);
    }
  };
  walk(items, '');
  return [...found.values()].reverse();
}
