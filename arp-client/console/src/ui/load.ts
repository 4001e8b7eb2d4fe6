//! What a screen fetches when it opens.

import { useEffect, useRef, useState } from 'preact/hooks';

interface Loaded<T> {
  value: T | null;
  error: unknown;
  /** Loads it anew, from the beginning. */
  again(): void;
  /** Loads it anew, while what is there stays; if that fails, it stays too. */
  renew(): void;
  set(value: T): void;
}

/**
 * Loads something and keeps what came, or what went wrong. What was asked for before something that is there already
 * comes too late.
 */
export function useLoad<T>(load: () => Promise<T>, on: readonly unknown[]): Loaded<T> {
  const [state, setState] = useState<{ value: T | null; error: unknown }>({ value: null, error: null });
  const [round, setRound] = useState(0);
  /** The last that was asked for, and the last that came. */
  const asked = useRef(0);
  const came = useRef(0);
  const show = (number: number, next: typeof state): void => {
    if (number < came.current) return;
    came.current = number;
    setState(next);
  };
  useEffect(() => {
    let live = true;
    const mine = ++asked.current;
    show(mine, { value: null, error: null });
    load().then(
      (value) => live && show(mine, { value, error: null }),
      (error: unknown) => live && show(mine, { value: null, error }),
    );
    return () => {
      live = false;
    };
  }, [...on, round]);
  return {
    ...state,
    again: () => setRound((n) => n + 1),
    renew: () => {
      const mine = ++asked.current;
      load().then((value) => show(mine, { value, error: null }), () => undefined);
    },
    set: (value) => show(++asked.current, { value, error: null }),
  };
}

/** Does something again after `on` changed: at most once in `pause` milliseconds, however often that is, and not at first. */
export function useFollow(on: readonly unknown[], work: () => void, pause: number): void {
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const first = useRef(true);
  const latest = useRef(work);
  latest.current = work;
  useEffect(() => {
    if (first.current) {
      first.current = false;
      return;
    }
    timer.current ??= setTimeout(() => {
      timer.current = undefined;
      latest.current();
    }, pause);
  }, on);
  useEffect(() => () => clearTimeout(timer.current), []);
}
