//! Chooses a directory of the machine: home, a project of the past, a repository, by browsing where files are served,
//! or typed.

import { useEffect, useState } from 'preact/hooks';
import { ago, t } from '../i18n';
import { call } from '../net/api';
import type { FsDirectory, FsRoots, Place } from '../net/types';
import type { Room } from '../state/machines';
import { Icon } from '../ui/icons';
import { attempt, baseName, Loading, Sheet, tidyPath } from '../ui/kit';

/** Places where a session may begin: home, projects of the past, other repositories. */
export async function placesOf(room: Room): Promise<Place[]> {
  try {
    return (await call<{ directories: Place[] }>(room.machine, 'GET', 'api/directories')).directories;
  } catch {
    // Then at least where its sessions work; any path can be typed.
    const paths = new Set([...room.sessions.peek().values()].map((session) => session.project_path));
    return [...paths].map((path) => ({ path, kind: 'recent', last_used: null }));
  }
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

/** The nearest places, one tap each. */
export function PlaceChips({ places, value, home, onPick }: { places: readonly Place[]; value: string; home: string | undefined; onPick(path: string): void }) {
  const recent = places.filter(({ kind }) => kind === 'recent').slice(0, 4);
  const near = [...places.filter(({ kind }) => kind === 'home'), ...recent, ...places.filter(({ kind }) => kind === 'repository').slice(0, Math.max(2, 6 - recent.length))];
  if (!near.length) return null;
  return (
    <div class="places" role="group" aria-label={t.directory}>
      {near.map(({ path, kind }) => (
        <button type="button" key={path} class="pick" title={path} aria-pressed={path === value} aria-label={kind === 'home' ? t.home : undefined} onClick={() => onPick(path)}>
          <Icon name={kind === 'repository' ? 'fork' : kind === 'home' ? 'machine' : 'folder'} size={15} />
          <span class="clip">{kind === 'home' ? '~' : baseName(path) || tidyPath(path, home)}</span>
        </button>
      ))}
    </div>
  );
}

export function DirectoryPicker({ room, value, places, onPick, onClose }: { room: Room; value: string; places: readonly Place[]; onPick(path: string): void; onClose(): void }) {
  // Until something is typed it is what is chosen, which may come later than this.
  const [edited, setTyped] = useState<string | null>(null);
  const typed = edited ?? value;
  const [browsing, setBrowsing] = useState(false);
  const info = room.info.value;
  const wanted = typed !== value ? typed.toLowerCase() : '';
  const fits = ({ path }: Place): boolean => path.toLowerCase().includes(wanted) || tidyPath(path, info?.home_dir).includes(wanted);
  const groups: [string, Place['kind']][] = [[t.home, 'home'], [t.recentProjects, 'recent'], [t.repositories, 'repository']];
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
          {groups.map(([name, kind]) => {
            const some = places.filter((place) => place.kind === kind && fits(place));
            return some.length > 0 && (
              <section key={kind} class="place-group">
                {kind !== 'home' && <h3>{name}</h3>}
                <ul class="rows">
                  {some.map(({ path, last_used }) => (
                    <li key={path}>
                      <button type="button" aria-pressed={path === value} onClick={() => onPick(path)}>
                        <Icon name={kind === 'repository' ? 'fork' : kind === 'home' ? 'machine' : 'folder'} size={18} />
                        <span class="two"><b class="clip">{kind === 'home' ? t.home : baseName(path)}</b><span class="clip soft">{tidyPath(path, info?.home_dir)}</span></span>
                        <time class="soft">{ago(last_used ?? 0)}</time>
                      </button>
                    </li>
                  ))}
                </ul>
              </section>
            );
          })}
          {info?.fs_enabled && <button type="button" class="button wide" onClick={() => setBrowsing(true)}><Icon name="folder" size={18} /> {t.browse}</button>}
        </>
      )}
    </Sheet>
  );
}
