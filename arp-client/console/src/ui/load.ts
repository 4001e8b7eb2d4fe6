//! What a screen fetches when it opens.

import { useEffect, useState } from 'preact/hooks';

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
