//! Chooses a directory of the machine: one of the recent ones, by browsing where files are served, or typed.

import { useEffect, useState } from 'preact/hooks';
import { ago, t } from '../i18n';
import { call } from '../net/api';
import { timeOf, type FsDirectory, type FsRoots, type WorkingDirectory } from '../net/types';
import type { Room } from '../state/machines';
import { Icon } from '../ui/icons';
import { attempt, baseName, Loading, Sheet, tidyPath } from '../ui/kit';

export interface RecentDirectory { path: string; last: number }

/** Directories that sessions and the agents' histories know, newest first. */
export async function recentDirectories(room: Room): Promise<RecentDirectory[]> {
  const found = new Map<string, number>();
  const note = (path: string, time: number): void => {
    if (path) found.set(path, Math.max(found.get(path) ?? 0, time || 0));
  };
  for (const session of room.sessions.peek().values()) note(session.project_path, Date.parse(session.updated_at));
  const agents = room.info.peek()?.agents.filter((agent) => agent.found && agent.capabilities.history) ?? [];
  await Promise.all(
    agents.map(async ({ executor }) => {
      try {
        const { directories } = await call<{ directories: WorkingDirectory[] }>(room.machine, 'GET', `api/${executor}/projects/working-directories`);
        for (const { path, lastDate } of directories) note(path, timeOf(lastDate));
      } catch {
        // One agent's history that cannot be read leaves the others' directories.
      }
    }),
  );
  return [...found].map(([path, last]) => ({ path, last })).sort((a, b) => b.last - a.last).slice(0, 50);
}

/** The path for `api/fs/…`: each part encoded, no leading slash. */
export const fsPath = (path: string): string => path.split('/').filter(Boolean).map(encodeURIComponent).join('/');

interface Folder { name: string; path: string }

/** The directories of an answer. */
function foldersOf(answer: FsDirectory | FsRoots, path: string): Folder[] {
  if (answer.type === 'roots') return answer.roots.map((root) => ({ name: root.path, path: root.path }));
  return answer.entries
    .filter((entry) => entry.type === 'directory')
    .map((entry) => ({ name: entry.name, path: `${path.replace(/\/$/, '')}/${entry.name}` }))
    .sort((a, b) => a.name.localeCompare(b.name));
}

function Browser({ room, from, onPick }: { room: Room; from: string; onPick(path: string): void }) {
  const [path, setPath] = useState(from);
  const [folders, setFolders] = useState<Folder[] | null>(null);
  useEffect(() => {
    let live = true;
    setFolders(null);
    void attempt(async () => {
      const answer = await call<FsDirectory | FsRoots>(room.machine, 'GET', path ? `api/fs/${fsPath(path)}` : 'api/fs');
      if (live) setFolders(foldersOf(answer, path));
    }).then((well) => {
      if (live && !well && path) setPath('');
    });
    return () => {
      live = false;
    };
  }, [path]);
  const parent = path.replace(/\/[^/]*$/, '');
  return (
    <div class="browser">
      <p class="path">{path || t.roots}</p>
      <ul class="rows">
        {path && <li><button type="button" onClick={() => setPath(parent)}><Icon name="up" size={18} />{t.upDir}</button></li>}
        {folders ? folders.map((entry) => (
          <li key={entry.path}>
            <button type="button" onClick={() => setPath(entry.path)}>
              <Icon name="folder" size={18} /><span class="clip">{entry.name}</span>
            </button>
          </li>
        )) : <Loading />}
      </ul>
      {path && <div class="actions"><button type="button" class="button primary" onClick={() => onPick(path)}>{t.useThis}</button></div>}
    </div>
  );
}

export function DirectoryPicker({ room, value, recent, onPick, onClose }: { room: Room; value: string; recent: readonly RecentDirectory[]; onPick(path: string): void; onClose(): void }) {
  const [typed, setTyped] = useState(value);
  const [browsing, setBrowsing] = useState(false);
  const info = room.info.value;
  const wanted = typed !== value ? typed.toLowerCase() : '';
  const shown = recent.filter(({ path }) => path.toLowerCase().includes(wanted));
  return (
    <Sheet title={t.directory} onClose={onClose}>
      <form
        class="inline"
        onSubmit={(event) => {
          event.preventDefault();
          if (typed.trim()) onPick(typed.trim());
        }}
      >
        <input class="field mono" aria-label={t.typePath} placeholder={t.typePath} value={typed} autocapitalize="off" autocorrect="off" spellcheck={false} onInput={(event) => setTyped(event.currentTarget.value)} />
        <button type="submit" class="button primary" disabled={!typed.trim()} aria-label={t.useThis}><Icon name="check" size={18} /></button>
      </form>
      {browsing ? (
        <Browser room={room} from={value} onPick={onPick} />
      ) : (
        <>
          <ul class="rows">
            {shown.map(({ path, last }) => (
              <li key={path}>
                <button type="button" aria-pressed={path === value} onClick={() => onPick(path)}>
                  <Icon name="folder" size={18} />
                  <span class="two"><b class="clip">{baseName(path)}</b><span class="clip soft">{tidyPath(path, info?.home_dir)}</span></span>
                  <time class="soft">{ago(last)}</time>
                </button>
              </li>
            ))}
          </ul>
          {info?.fs_enabled && <button type="button" class="button wide" onClick={() => setBrowsing(true)}><Icon name="folder" size={18} /> {t.browse}</button>}
        </>
      )}
    </Sheet>
  );
}
