//! What a screen fetches when it opens.

import { useEffect, useRef, useState } from 'preact/hooks';

/** Loads something and keeps what came, or what went wrong. */
export function useLoad<T>(load: () => Promise<T>, on: readonly unknown[]): { value: T | null; error: unknown; again(): void; set(value: T): void } {
  const [state, setState] = useState<{ value: T | null; error: unknown }>({ value: null, error: null });
  const [round, setRound] = useState(0);
  useEffect(() => {
    let live = true;
    setState({ value: null, error: null });
    load().then(
      (value) => live && setState({ value, error: null }),
      (error: unknown) => live && setState({ value: null, error }),
    );
    return () => {
      live = false;
    };
  }, [...on, round]);
  return { ...state, again: () => setRound((n) => n + 1), set: (value) => setState({ value, error: null }) };
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
