//! What an answer may still do when it comes late.

import { useEffect, useRef } from 'preact/hooks';

/** `work`, as long as the part of the page that asks for it is there: it closes no other sheet in its place. */
export function useWhileHere(work: () => void): () => void {
  const here = useRef(true);
  useEffect(() => () => {
    here.current = false;
  }, []);
  return () => {
    if (here.current) work();
  };
}
