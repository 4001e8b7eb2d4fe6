//! Where the next message is written: the queue above, mode and model below, send, interrupt.

import { useComputed } from '@preact/signals';
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import { t } from '../i18n';
import { modeOf } from '../model/mode';
import { drafts, setDraft } from '../model/prefs';
import type { Session } from '../net/types';
import type { OpenSession } from '../state/session';
import { usageLine } from '../timeline/rows';
import { Elapsed } from '../timeline/words';
import { Icon } from '../ui/icons';
import { attempt, useSingle } from '../ui/kit';
import { EnterHint, Prompt } from '../ui/prompt';
import { branch, canBranch, IN_USE } from '../state/branch';
import { again, drop } from '../state/outbox';
import { modeName } from './Pickers';

/** Messages that wait: those of the machine's queue, and those on their way there. */
export function Queue({ open, session }: { open: OpenSession; session: Session }) {
  // The machine may have told of a message in its queue before it answered who sent it.
  const told = new Set(session.queue.map((message) => message.client_id));
  const single = useSingle();
  const letters = open.outgoing.filter((letter) => !told.has(letter.clientId));
  if (!session.queue.length && !letters.length) return null;
  return (
    <ul class="queue" aria-label={t.queue}>
      {session.queue.map((message) => (
        <li key={message.id}>
          <span class="tag">{t.queued}</span>
          <span class="clip">{message.text}</span>
          <button type="button" class="ghost round" aria-label={t.unqueue} title={t.unqueue} onClick={(event) => single(event, () => void attempt(() => open.unqueue(message.id)))}><Icon name="close" size={15} /></button>
        </li>
      ))}
      {letters.map((letter) => (
        <li key={letter.clientId} class={letter.state}>
          <span class="tag" title={letter.state === 'waiting' ? t.toBeSentText : letter.error || undefined}>{letter.state === 'failed' ? t.notSent : letter.state === 'waiting' ? t.toBeSent : t.sending}</span>
          <span class="clip">{letter.text}{letter.error && <span class="bad"> · {letter.error}</span>}</span>
          {letter.code === IN_USE && canBranch(open.room, session) && (
            <button type="button" class="small" onClick={() => void attempt(async () => {
              await branch(open.room, session.id, { prompt: letter.text, client_id: `${letter.clientId}-b` });
              drop(new Set([letter.clientId]));
            })}>{t.openBranch}</button>
          )}
          {letter.state === 'failed' && <button type="button" class="small" onClick={() => again(open.room, letter.clientId)}>{t.retry}</button>}
          {(letter.state === 'failed' || letter.state === 'waiting') && (
            <button type="button" class="ghost round" aria-label={t.discard} title={t.discard} onClick={(event) => single(event, () => drop(new Set([letter.clientId])))}><Icon name="close" size={15} /></button>
          )}
        </li>
      ))}
    </ul>
  );
}

/** What the agent does now. By itself, for it changes with each word that it says. */
function Doing({ open, session }: { open: OpenSession; session: Session }) {
  open.version.value;
  return <span class="clip" aria-live="off">{session.status === 'starting' ? t.st_starting : session.activity || open.timeline.value.activity || t.st_running}</span>;
}

export function Composer({ open, session, onMode, onModel }: { open: OpenSession; session: Session; onMode?: () => void; onModel?: () => void }) {
  const [text, setText] = useState(drafts.value[session.id] ?? '');
  const area = useRef<HTMLTextAreaElement>(null);
  const runs = session.turn !== null || session.status === 'running' || session.status === 'starting' || session.status === 'waiting';
  const asleep = session.status === 'completed' || session.status === 'failed' || session.status === 'cancelled';

  useLayoutEffect(() => {
    const focus = (): void => area.current?.focus();
    addEventListener('arp-reply', focus);
    return () => removeEventListener('arp-reply', focus);
  }, []);

  const send = (interrupt = false): void => {
    const message = text.trim();
    if (!message) return;
    setText('');
    setDraft(session.id, '');
    open.send(message, interrupt);
  };

  const facts = useComputed(() => (open.version.value, open.timeline.value.facts)).value;
  const usage = useComputed(() => (open.version.value, open.timeline.value.usage)).value;
  const mode = modeOf(session, facts);
  return (
    <div class="dock">
      <Queue open={open} session={session} />
      {runs && (
        <div class="doing">
          <i class="pulse" />
          <Doing open={open} session={session} />
          {session.turn && <Elapsed since={Date.parse(session.turn.started_at)} />}
        </div>
      )}
      <form
        class="composer"
        onSubmit={(event) => {
          event.preventDefault();
          send();
        }}
      >
        <Prompt
          id="reply"
          area={area}
          label={t.message}
          placeholder={runs ? t.messageQueueHint : asleep ? t.messageResumeHint : t.messageHint}
          value={text}
          grows={200}
          onText={(typed) => {
            setText(typed);
            setDraft(session.id, typed);
          }}
          onSend={() => send()}
        />
        <div class="composer-foot">
          {onMode ? <button type="button" class={mode === 'bypassPermissions' ? 'chip attn' : 'chip'} onClick={onMode}><Icon name="shield" size={15} /><span class="clip">{modeName(mode)}</span></button> : null}
          {onModel ? <button type="button" class="chip" onClick={onModel}><Icon name="model" size={15} /><span class="clip">{session.model || t.modelDefault}</span></button> : null}
          <span class="usage clip"><EnterHint of="reply" /><span>{usageLine(session.usage ?? usage)}</span></span>
          {runs && text.trim() && <button type="button" class="chip" title={t.sendNow} aria-label={t.sendNow} onClick={() => send(true)}><Icon name="play" size={15} /></button>}
          {runs && !text.trim() ? (
            <button type="button" class="send stop" aria-label={t.interrupt} title={t.interrupt} onClick={() => void attempt(() => open.interrupt())}><Icon name="stop" size={18} /></button>
          ) : (
            <button type="submit" class="send" aria-label={t.send} disabled={!text.trim()}><Icon name="up" size={20} /></button>
          )}
        </div>
      </form>
    </div>
  );
}
