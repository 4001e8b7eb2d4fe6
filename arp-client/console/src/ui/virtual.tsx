//! A list of any length: only what is near the window is in the page. Rows may have any height and change it;
//! what the reader looks at stays where it is, and a list that stands at its end follows it.

import type { ComponentChild, RefObject } from 'preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';

/** Drawn beyond the window on either side, in pixels. */
const OVERSCAN = 700;
/** This near to the end counts as at the end. */
const END = 48;
/** This near to the beginning, more is asked for. */
const TOP = 1600;

export interface ListHandle {
  toEnd(): void;
  /** Shows the row with this key. */
  toKey(key: string): void;
}

interface Props<T> {
  items: readonly T[];
  /** A guess of a row's height before it was drawn. */
  estimate(item: T): number;
  render(item: T, index: number): ComponentChild;
  onNearTop?(): void;
  onEnd?(atEnd: boolean): void;
  label: string;
  handle?: RefObject<ListHandle>;
}

/** First index whose offset is beyond `at`. */
function after(offsets: Float64Array, at: number): number {
  let low = 0;
  let high = offsets.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((offsets[middle] ?? 0) > at) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Where each row begins, by the heights that were measured and guesses for the rest. */
class Offsets<T extends { key: string }> {
  readonly #heights = new Map<string, number>();
  #items: readonly T[] | null = null;
  #sums = new Float64Array(1);

  /** Notes a height. Returns whether it is another than before. */
  measured(key: string, height: number): boolean {
    if (!height || Math.abs((this.#heights.get(key) ?? -1) - height) <= 0.5) return false;
    this.#heights.set(key, height);
    this.#items = null;
    return true;
  }

  /** One more than there are rows: the last is the height of all. */
  of(items: readonly T[], estimate: (item: T) => number): Float64Array {
    if (items === this.#items) return this.#sums;
    const sums = new Float64Array(items.length + 1);
    let sum = 0;
    items.forEach((item, index) => {
      sums[index] = sum;
      sum += this.#heights.get(item.key) ?? estimate(item);
    });
    sums[items.length] = sum;
    this.#items = items;
    return (this.#sums = sums);
  }
}

/** The part of the list that is in the page: rows from `start` to before `end`, and how much room is left for the others. */
interface Part { start: number; end: number; before: number; after: number }
const same = (one: Part, other: Part): boolean =>
  one.start === other.start && one.end === other.end && Math.abs(one.before - other.before) <= 0.5 && Math.abs(one.after - other.after) <= 0.5;

export function VirtualList<T extends { key: string }>({ items, estimate, render, onNearTop, onEnd, label, handle }: Props<T>) {
  const scroller = useRef<HTMLDivElement>(null);
  const offsets = useRef(new Offsets<T>()).current;
  const rows = useRef(new Map<string, Element>());
  const atEnd = useRef(true);
  /** Where following the end last led to. */
  const followed = useRef(Infinity);
  const anchor = useRef({ index: 0, key: '', delta: 0 });
  const view = useRef({ top: 0, height: 900 });
  const [, again] = useState(0);

  const sums = offsets.of(items, estimate);
  const partOf = (list: readonly T[], at: Float64Array): Part => {
    const total = at[list.length] ?? 0;
    // At the end the window is where the end is, whatever the last scroll event said.
    const top = atEnd.current ? Math.max(0, total - view.current.height) : view.current.top;
    const start = Math.max(0, after(at, top - OVERSCAN) - 1);
    const end = Math.min(list.length, after(at, top + view.current.height + OVERSCAN));
    return { start, end, before: at[start] ?? 0, after: Math.max(0, total - (at[end] ?? total)) };
  };
  const part = partOf(items, sums);

  const state = useRef({ items, part, estimate });
  state.current = { items, part, estimate };

  /** Draws anew if other rows belong into the page, or other room beside them: that a row grows is its own affair. */
  const refresh = (): void => {
    const { items: list, part: drawn, estimate: guess } = state.current;
    if (!same(partOf(list, offsets.of(list, guess)), drawn)) again((count) => count + 1);
  };

  const remember = (): void => {
    const box = scroller.current;
    if (!box) return;
    const { items: list, estimate: guess } = state.current;
    const at = offsets.of(list, guess);
    const { scrollTop, scrollHeight, clientHeight } = box;
    // Nobody leaves the end but by scrolling up: what came meanwhile only makes it further away.
    const ended = scrollHeight - scrollTop - clientHeight < END || (atEnd.current && scrollTop >= followed.current);
    if (ended !== atEnd.current) {
      atEnd.current = ended;
      onEnd?.(ended);
    }
    const index = Math.max(0, Math.min(list.length - 1, after(at, scrollTop) - 1));
    anchor.current = { index, key: list[index]?.key ?? '', delta: scrollTop - (at[index] ?? 0) };
    view.current = { top: scrollTop, height: clientHeight };
    refresh();
    if (scrollTop < TOP) onNearTop?.();
  };

  /** Stays at the end, or keeps the row under the eye where it was. Asks the page for its layout. */
  const hold = (): void => {
    const box = scroller.current;
    if (!box) return;
    if (atEnd.current) {
      const { scrollHeight, clientHeight } = box;
      box.scrollTop = scrollHeight;
      followed.current = scrollHeight - clientHeight - 1;
      return;
    }
    const { items: list, estimate: guess } = state.current;
    const { key, delta } = anchor.current;
    let { index } = anchor.current;
    if (list[index]?.key !== key) index = list.findIndex((item) => item.key === key);
    if (index < 0) return;
    anchor.current.index = index;
    const wanted = (offsets.of(list, guess)[index] ?? 0) + delta;
    if (Math.abs(box.scrollTop - wanted) > 1) box.scrollTop = wanted;
  };

  // After a drawing with other rows or other room for those that are not drawn. A row that grew is seen by the observer,
  // when the browser has laid it out in any case: to ask here would lay out each word of a text that streams twice.
  const first = items[part.start]?.key;
  useLayoutEffect(hold, [first, part.before, atEnd.current && part.after, atEnd.current && items.length]);

  const [observer] = useState(
    () =>
      new ResizeObserver((entries) => {
        const box = scroller.current;
        let changed = false;
        for (const entry of entries) {
          if (box && entry.target === box) {
            view.current = { ...view.current, height: box.clientHeight };
            changed = true;
            continue;
          }
          const key = (entry.target as HTMLElement).dataset['key'] ?? '';
          const height = entry.borderBoxSize[0]?.blockSize ?? (entry.target as HTMLElement).offsetHeight;
          if (offsets.measured(key, height)) changed = true;
        }
        if (!changed) return;
        // Layout is done at this point: to look costs nothing.
        hold();
        refresh();
      }),
  );

  useEffect(() => {
    if (scroller.current) observer.observe(scroller.current);
    remember();
    return () => observer.disconnect();
  }, []);

  // A list that came to stand at its very beginning asks for more without being scrolled.
  useEffect(() => {
    const box = scroller.current;
    if (box && box.scrollTop < TOP) onNearTop?.();
  }, [items.length]);

  if (handle) {
    handle.current = {
      toEnd: () => {
        atEnd.current = true;
        onEnd?.(true);
        again((count) => count + 1);
        hold();
      },
      toKey: (key) => {
        const { items: list, estimate: guess } = state.current;
        const at = offsets.of(list, guess);
        const index = list.findIndex((item) => item.key === key);
        const box = scroller.current;
        if (index < 0 || !box) return;
        atEnd.current = false;
        onEnd?.(false);
        anchor.current = { index, key, delta: -24 };
        box.scrollTop = Math.max(0, (at[index] ?? 0) - 24);
        again((count) => count + 1);
      },
    };
  }

  const refs = useRef(new Map<string, (element: HTMLDivElement | null) => void>());
  const refOf = (key: string): ((element: HTMLDivElement | null) => void) => {
    let made = refs.current.get(key);
    if (!made) {
      made = (element): void => {
        const old = rows.current.get(key);
        if (old === element) return;
        if (old) observer.unobserve(old);
        if (element) {
          rows.current.set(key, element);
          observer.observe(element);
        } else {
          rows.current.delete(key);
          refs.current.delete(key);
        }
      };
      refs.current.set(key, made);
    }
    return made;
  };

  return (
    <div class="scroll list" ref={scroller} onScroll={remember} tabIndex={0} role="log" aria-live="off" aria-label={label}>
      <div class="spacer" style={{ height: `${part.before}px` }} />
      {items.slice(part.start, part.end).map((item, index) => (
        <div class="row" key={item.key} data-key={item.key} ref={refOf(item.key)}>
          {render(item, part.start + index)}
        </div>
      ))}
      <div class="spacer" style={{ height: `${part.after}px` }} />
    </div>
  );
}
