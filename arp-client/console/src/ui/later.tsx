//! Parts of the page that are fetched when they are first wanted.

import type { FunctionComponent } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { Failed, Loading } from './kit';

/** A screen that is fetched when it is first wanted, or before, while nothing else is to be done; `quiet`: nothing stands in its place. */
export function later<P extends object>(fetch: () => Promise<FunctionComponent<P>>, quiet = false): { fetch(): Promise<unknown>; View: FunctionComponent<P> } {
  let view: FunctionComponent<P> | undefined;
  const get = async (): Promise<unknown> => (view ??= await fetch());
  const View = (props: P) => {
    const [ready, setReady] = useState(Boolean(view));
    const [error, setError] = useState<unknown>(null);
    const load = (): void => {
      setError(null);
      get().then(() => setReady(true), setError);
    };
    useEffect(load, []);
    const Shown = view;
    if (ready && Shown) return <Shown {...props} />;
    if (quiet) return null;
    return error ? <Failed error={error} onRetry={load} /> : <Loading />;
  };
  return { fetch: get, View };
}
