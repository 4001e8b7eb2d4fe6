//! A list of any length: only what is near the window is in the page. Rows may have any height and change it;
//! what the reader looks at stays where it is, and a list that stands at its end follows it.

import type { ComponentChild, RefObject } from 'preact';
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';

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

export function VirtualList<T extends { key: string }>({ items, estimate, render, onNearTop, onEnd, label, handle }: Props<T>) {
  const scroller = useRef<HTMLDivElement>(null);
  const heights = useRef(new Map<string, number>());
  const rows = useRef(new Map<string, Element>());
  const atEnd = useRef(true);
  const anchor = useRef({ index: 0, key: '', delta: 0 });
  const [measured, setMeasured] = useState(0);
  const [view, setView] = useState({ top: 0, height: 900 });

  const offsets = useMemo(() => {
    const sums = new Float64Array(items.length + 1);
    let sum = 0;
    items.forEach((item, index) => {
      sums[index] = sum;
      sum += heights.current.get(item.key) ?? estimate(item);
    });
    sums[items.length] = sum;
    return sums;
  }, [items, measured]);
  const total = offsets[items.length] ?? 0;

  // At the end the window is where the end is, whatever the last scroll event said.
  const top = atEnd.current ? Math.max(0, total - view.height) : view.top;
  const start = Math.max(0, after(offsets, top - OVERSCAN) - 1);
  const end = Math.min(items.length, after(offsets, top + view.height + OVERSCAN));

  const state = useRef({ offsets, items });
  state.current = { offsets, items };

  const remember = (): void => {
    const box = scroller.current;
    if (!box) return;
    const { offsets: sums, items: list } = state.current;
    const ended = box.scrollHeight - box.scrollTop - box.clientHeight < END;
    if (ended !== atEnd.current) {
      atEnd.current = ended;
      onEnd?.(ended);
    }
    const index = Math.max(0, Math.min(list.length - 1, after(sums, box.scrollTop) - 1));
    anchor.current = { index, key: list[index]?.key ?? '', delta: box.scrollTop - (sums[index] ?? 0) };
    setView((old) => (old.top === box.scrollTop && old.height === box.clientHeight ? old : { top: box.scrollTop, height: box.clientHeight }));
    if (box.scrollTop < TOP) onNearTop?.();
  };

  // After every drawing: stay at the end, or keep the row under the eye where it was.
  useLayoutEffect(() => {
    const box = scroller.current;
    if (!box) return;
    if (atEnd.current) {
      box.scrollTop = box.scrollHeight;
      return;
    }
    const { key, delta } = anchor.current;
    let { index } = anchor.current;
    if (items[index]?.key !== key) index = items.findIndex((item) => item.key === key);
    if (index < 0) return;
    anchor.current.index = index;
    const wanted = (offsets[index] ?? 0) + delta;
    if (Math.abs(box.scrollTop - wanted) > 1) box.scrollTop = wanted;
  }, [offsets]);

  const [observer] = useState(
    () =>
      new ResizeObserver((entries) => {
        let changed = false;
        for (const entry of entries) {
          if (entry.target === scroller.current) {
            const { clientHeight } = entry.target;
            setView((old) => (old.height === clientHeight ? old : { ...old, height: clientHeight }));
            if (atEnd.current) entry.target.scrollTop = entry.target.scrollHeight;
            continue;
          }
          const key = (entry.target as HTMLElement).dataset['key'] ?? '';
          const height = entry.borderBoxSize[0]?.blockSize ?? (entry.target as HTMLElement).offsetHeight;
          if (height && Math.abs((heights.current.get(key) ?? -1) - height) > 0.5) {
            heights.current.set(key, height);
            changed = true;
          }
        }
        if (changed) setMeasured((count) => count + 1);
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
        setMeasured((count) => count + 1);
        const box = scroller.current;
        if (box) box.scrollTop = box.scrollHeight;
      },
      toKey: (key) => {
        const { offsets: sums, items: list } = state.current;
        const index = list.findIndex((item) => item.key === key);
        const box = scroller.current;
        if (index < 0 || !box) return;
        atEnd.current = false;
        onEnd?.(false);
        anchor.current = { index, key, delta: -24 };
        box.scrollTop = Math.max(0, (sums[index] ?? 0) - 24);
        setMeasured((count) => count + 1);
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
      <div class="spacer" style={{ height: `${offsets[start] ?? 0}px` }} />
      {items.slice(start, end).map((item, index) => (
        <div class="row" key={item.key} data-key={item.key} ref={refOf(item.key)}>
          {render(item, start + index)}
        </div>
      ))}
      <div class="spacer" style={{ height: `${Math.max(0, total - (offsets[end] ?? total))}px` }} />
    </div>
  );
}
