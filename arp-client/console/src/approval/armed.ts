//! A question that has just come, or that has just changed, takes no answer: whoever taps or types at that moment
//! meant something else.

import { useLayoutEffect, useRef, useState } from 'preact/hooks';

/** How long a question stands quietly before it takes an answer, in milliseconds. */
export const QUIET = 600;

export interface Armed {
  /** May an answer be given? For drawing. */
  ready: boolean;
  /** Does an answer count that was given at this time (`event.timeStamp`)? */
  takes(at: number): boolean;
  /** Something was pressed: what is not ready yet waits anew. */
  press(): void;
}

/** `what`: names all that is shown, so that a change of it begins anew; empty while it is not all there. */
export function useArmed(what: string): Armed {
  const [armed, arm] = useState({ what: '', since: 0 });
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const wait = (): void => {
    clearTimeout(timer.current);
    // What nobody can see does not become ready.
    if (what && document.visibilityState === 'visible') timer.current = setTimeout(() => arm({ what, since: performance.now() }), QUIET);
  };
  useLayoutEffect(() => {
    const seen = (): void => {
      arm({ what: '', since: 0 });
      wait();
    };
    wait();
    document.addEventListener('visibilitychange', seen);
    return () => {
      clearTimeout(timer.current);
      document.removeEventListener('visibilitychange', seen);
    };
  }, [what]);
  const ready = what !== '' && armed.what === what;
  return {
    ready,
    takes: (at) => ready && at >= armed.since,
    press: () => {
      if (!ready) wait();
    },
  };
}
