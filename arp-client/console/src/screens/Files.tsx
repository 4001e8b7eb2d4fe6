//! The files of a machine, where its owner serves them: directories and a viewer. Loaded when first opened.

import { useState } from 'preact/hooks';
import { ago, bytes, number, t } from '../i18n';
import { call, seg } from '../net/api';
import { timeOf, type FsDirectory, type FsFile, type FsRoots } from '../net/types';
import { go, hrefOf } from '../state/route';
import { roomOf, type Room } from '../state/machines';
import { clean } from '../text/markdown';
import { Html } from '../text/Markdown';
import { highlight } from '../text/highlight';
import { Icon } from '../ui/icons';
import { attempt, baseName, copy, Empty, Failed, Loading, tidyPath } from '../ui/kit';
import { fsPath } from './DirectoryPicker';
import { Header, UnknownMachine } from './Header';
import { useLoad } from '../ui/load';
import { named } from '../model/named';

const IMAGES: Record<string, string> = { png: 'image/png', jpg: 'image/jpeg', jpeg: 'image/jpeg', gif: 'image/gif', webp: 'image/webp', avif: 'image/avif' };

function FileView({ file }: { file: FsFile }) {
  const extension = file.path.split('.').pop()?.toLowerCase() ?? '';
  const image = named(IMAGES, extension);
  if (file.encoding === 'base64') {
    return image && !file.truncated ? <img class="picture" src={`data:${image};base64,${file.content}`} alt={baseName(file.path)} /> : <Empty icon="read" title={t.binary(bytes(file.size))} />;
  }
  const lines = file.content.replace(/\n$/, '').split('\n').length;
  return (
    <>
      {file.truncated && <p class="notice"><Icon name="warn" size={18} />{t.truncated(bytes(file.bytes), bytes(file.size))}</p>}
      <div class="source">
        <pre class="numbers" aria-hidden="true">{Array.from({ length: lines }, (_, index) => index + 1).join('\n')}</pre>
        <pre class="text" tabIndex={0}><Html html={clean(`<code>${highlight(file.content, extension)}</code>`)} /></pre>
      </div>
    </>
  );
}

function Directory({ room, directory, path, session }: { room: Room; directory: FsDirectory; path: string; session: string }) {
  const [filter, setFilter] = useState('');
  const order = { directory: 0, symlink: 1, file: 1, other: 2 };
  const entries = directory.entries
    .filter((entry) => entry.name.toLowerCase().includes(filter.toLowerCase()))
    .sort((a, b) => order[a.type] - order[b.type] || a.name.localeCompare(b.name, undefined, { numeric: true }));
  const child = (name: string): string => (path ? `${path.replace(/\/$/, '')}/${name}` : name);
  if (!directory.entries.length) return <Empty icon="folder" title={t.emptyDir} />;
  return (
    <>
      {directory.entries.length > 20 && <input class="field" type="search" aria-label={t.filter} placeholder={t.filter} value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />}
      <ul class="rows cards">
        {entries.map((entry) => (
          <li key={entry.name}>
            <a href={hrefOf({ name: 'files', machine: room.machine.id, path: child(entry.name), session })}>
              <Icon name={entry.type === 'directory' ? 'folder' : 'read'} size={19} />
              <span class="two"><span class="clip">{entry.name}</span></span>
              <span class="aside">{entry.mtime && <time>{ago(timeOf(entry.mtime))}</time>}{entry.type === 'file' && entry.size !== null && <span>{bytes(entry.size)}</span>}</span>
            </a>
          </li>
        ))}
      </ul>
    </>
  );
}

/** Where browsing may begin. */
function Roots({ room, roots }: { room: Room; roots: FsRoots }) {
  if (!roots.roots.length) return <Empty icon="folder" title={t.noRoots}><p>{t.noRootsText}</p></Empty>;
  return (
    <ul class="rows cards">
      {roots.roots.map(({ path, name }) => (
        <li key={path}>
          <a href={hrefOf({ name: 'files', machine: room.machine.id, path, session: '' })}>
            <Icon name="folder" size={20} />
            <span class="two"><b class="clip">{name || baseName(path)}</b><span class="clip soft">{tidyPath(path, room.info.value?.home_dir)}</span></span>
            <Icon name="right" size={15} />
          </a>
        </li>
      ))}
    </ul>
  );
}

/** The parent of a path, or null at the top. */
function parentOf(path: string): string | null {
  if (!path) return null;
  const trimmed = path.replace(/\/+$/, '');
  const cut = trimmed.lastIndexOf('/');
  return cut > 0 ? trimmed.slice(0, cut) : '';
}

export default function Files({ machine, path, session }: { machine: string; path: string; session: string }) {
  const room = roomOf(machine);
  if (!room) return <UnknownMachine />;
  const info = room.info.value;
  if (info && !info.fs_enabled) {
    return <div class="screen"><Header root title={t.files} /><Empty icon="folder" title={t.filesOff}><p>{t.filesOffText}</p></Empty></div>;
  }
  // A place of its own each: what comes late for one is not shown in another.
  return <Place key={`${room.key} ${session} ${path}`} room={room} path={path} session={session} />;
}

function Place({ room, path, session }: { room: Room; path: string; session: string }) {
  const prefix = session ? `api/sessions/${seg(session)}/fs` : 'api/fs';
  const { value, error, again, set } = useLoad(() => call<FsRoots | FsDirectory | FsFile>(room.machine, 'GET', path ? `${prefix}/${fsPath(path)}` : prefix), [room, path, session]);
  const parent = parentOf(path);
  return (
    <div class="screen">
      <Header root={!path && !session} title={path ? baseName(path) : t.files} sub={path ? tidyPath(path, room.info.value?.home_dir) : undefined} fallback={parent === null && session ? { name: 'session', machine: room.machine.id, id: session } : { name: 'files', machine: room.machine.id, path: parent ?? '', session }}>
        {parent !== null && <button type="button" class="ghost round" aria-label={t.upDir} onClick={() => go({ name: 'files', machine: room.machine.id, path: parent, session })}><Icon name="up" /></button>}
        {value?.type === 'file' && value.encoding === 'utf-8' && <button type="button" class="chip" onClick={() => void copy(value.content)}>{t.copy}</button>}
      </Header>
      <div class={value?.type === 'file' ? 'scroll page full' : 'scroll page'}>
        {error ? <Failed error={error} onRetry={again} /> : !value ? <Loading /> : value.type === 'roots' ? <Roots room={room} roots={value} /> : value.type === 'directory' ? <Directory room={room} directory={value} path={path} session={session} /> : <FileView file={value} />}
        {value?.type === 'directory' && <p class="soft small pad">{number(value.entries.length)}{value.total && value.total > value.entries.length ? ` / ${number(value.total)}` : ''}</p>}
        {value?.type === 'directory' && (value.total ?? 0) > value.entries.length && (
          <div class="center"><button type="button" class="button" onClick={() => void attempt(async () => {
            const more = await call<FsDirectory>(room.machine, 'GET', `${path ? `${prefix}/${fsPath(path)}` : prefix}?offset=${value.entries.length}`);
            set({ ...value, entries: [...value.entries, ...more.entries], total: more.entries.length ? (more.total ?? 0) : value.entries.length });
          })}>{t.loadMore}</button></div>
        )}
      </div>
    </div>
  );
}
