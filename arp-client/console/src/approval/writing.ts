//! On a phone the keyboard leaves no room for a question beside what is being written: it then waits on one line.

import { useEffect, useRef, useState } from 'preact/hooks';

/** How long after the last touch of the text the room may change hands, in milliseconds: a tap on "send" ends first. */
const SETTLE = 300;
const narrow = matchMedia('(max-width: 899px)');

export interface Writing {
  /** Is something being written where there is no room beside it? */
  here: boolean;
  focus(event: FocusEvent): void;
  blur(event: FocusEvent): void;
  /** Puts the keyboard away. */
  end(): void;
}

export function useWriting(): Writing {
  const [here, set] = useState(false);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const isText = (event: FocusEvent): boolean => event.target instanceof HTMLTextAreaElement;
  return {
    here,
    focus: (event) => {
      if (!isText(event)) return;
      clearTimeout(timer.current);
      set(narrow.matches);
    },
    blur: (event) => {
      if (!isText(event)) return;
      clearTimeout(timer.current);
      timer.current = setTimeout(() => set(false), SETTLE);
    },
    end: () => {
      clearTimeout(timer.current);
      if (document.activeElement instanceof HTMLTextAreaElement) document.activeElement.blur();
      clearTimeout(timer.current);
      set(false);
    },
  };
}
