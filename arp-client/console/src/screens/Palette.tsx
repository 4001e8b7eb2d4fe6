//! The palette (Ctrl K): any session or place by a few letters.

import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { t } from '../i18n';
import { paletteOpen } from '../keys';
import { holds, matches } from '../model/inbox';
import { isPast, sections } from '../state/overview';
import { go, sheetClosed, sheetOpened, type Route } from '../state/route';
import { AgentMark, Icon, type IconName } from '../ui/icons';
import { baseName } from '../ui/kit';
import { titleOf } from './Inbox';
import { composes } from '../ui/keyname';

interface Entry { key: string; title: string; sub: string; to: Route; icon: IconName | null; executor: string }

function entries(query: string): Entry[] {
  const places: Entry[] = ([
    [t.newSession, { name: 'new' }, 'plus'],
    [t.sessions, { name: 'inbox' }, 'inbox'],
    [t.files, { name: 'files', machine: '', path: '', session: '' }, 'folder'],
    [t.settings, { name: 'settings' }, 'settings'],
  ] as [string, Route, IconName][]).map(([title, to, icon]) => ({ key: title, title, sub: '', to, icon, executor: '' }));
  const sessions = sections.value.flatMap((section) => section.lines)
    .filter((line) => !query || (isPast(line) ? holds(line.past, query) : matches(line.session, query)))
    .map((line): Entry => (isPast(line)
      ? { key: line.past.id, title: line.past.title || line.past.first_message || t.untitled, sub: baseName(line.past.project_path), executor: line.executor, icon: null, to: { name: 'history', machine: line.room.machine.id, agent: line.executor, id: line.past.id } }
      : { key: line.session.id, title: titleOf(line.session), sub: baseName(line.session.project_path), executor: line.session.executor, icon: null, to: { name: 'session', machine: line.room.machine.id, id: line.session.id } }));
  const named = places.filter((place) => place.title.toLowerCase().includes(query.toLowerCase()));
  return (query ? [...sessions, ...named] : [...named, ...sessions]).slice(0, 40);
}

export function Palette() {
  const [query, setQuery] = useState('');
  const [at, setAt] = useState(0);
  const dialog = useRef<HTMLDialogElement>(null);
  const list = useRef<HTMLUListElement>(null);
  // Before the next key arrives: what is typed right after Ctrl K belongs to the palette.
  useLayoutEffect(() => {
    const hide = (): void => void (paletteOpen.value = false);
    dialog.current?.showModal();
    sheetOpened(hide);
    return () => sheetClosed(hide);
  }, []);
  useEffect(() => list.current?.children[at]?.scrollIntoView({ block: 'nearest' }), [at]);
  const found = entries(query.trim());
  const close = (): void => {
    dialog.current?.close();
    paletteOpen.value = false;
  };
  const pick = (entry: Entry | undefined): void => {
    if (!entry) return;
    close();
    go(entry.to);
  };
  return (
    <dialog class="palette" ref={dialog} aria-label={t.kb_palette} onCancel={close} onClick={(event) => event.target === dialog.current && close()}>
      <div class="searchbar">
        <Icon name="search" size={18} />
        <input
          autofocus
          role="combobox"
          aria-expanded="true"
          aria-controls="palette-list"
          aria-activedescendant={found[at] ? `p-${at}` : undefined}
          aria-label={t.kb_palette}
          placeholder={t.palette}
          value={query}
          onInput={(event) => {
            setQuery(event.currentTarget.value);
            setAt(0);
          }}
          onKeyDown={(event) => {
            if (composes(event)) return;
            if (event.key === 'ArrowDown') setAt(Math.min(found.length - 1, at + 1));
            else if (event.key === 'ArrowUp') setAt(Math.max(0, at - 1));
            else if (event.key === 'Enter') pick(found[at]);
            else return;
            event.preventDefault();
          }}
        />
      </div>
      <ul id="palette-list" ref={list} role="listbox" aria-label={t.kb_palette}>
        {found.map((entry, index) => (
          <li key={entry.key} id={`p-${index}`} role="option" aria-selected={index === at} onClick={() => pick(entry)} onPointerMove={() => setAt(index)}>
            {entry.icon ? <span class="mark"><Icon name={entry.icon} size={18} /></span> : <AgentMark executor={entry.executor} />}
            <span class="clip">{entry.title}</span>
            <span class="soft clip">{entry.sub}</span>
          </li>
        ))}
      </ul>
      {!found.length && <p class="soft pad">{t.paletteEmpty}</p>}
    </dialog>
  );
}
