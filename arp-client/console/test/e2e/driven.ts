//! An agent that says what the test tells it to, when the test tells it to: what is to be seen at each step does not
//! depend on how fast anything is.

import type { MockEdge, MockSession } from '../../dev/mock/edge';

export interface Driven {
  /** Says a piece of one long text; with `delta` false, the whole of it at its end. */
  say(text: string, delta?: boolean): void;
  /** Tells any other event. */
  push(event: Parameters<MockSession['push']>[0]): void;
  /** Ends the turn. */
  end(): void;
}

/** The turns of this edge are the test's from now on. */
export function drive(edge: MockEdge): Driven {
  let session: MockSession | null = null;
  let resolve = (): void => undefined;
  edge.script = (of) => {
    session = of;
    return new Promise<void>((done) => { resolve = done; });
  };
  const push: Driven['push'] = (event) => {
    if (!session) throw new Error('no turn runs yet');
    session.push(event);
  };
  return {
    push,
    say: (text, delta = true) => { push({ type: 'text', id: 'driven', text, delta }); },
    end: () => resolve(),
  };
}

/** The whole numbers from `from` to `to`, a line each: a lost or doubled one is seen. */
export const numbers = (from: number, to: number): string => Array.from({ length: to - from + 1 }, (_, index) => `${from + index}\n`).join('');
