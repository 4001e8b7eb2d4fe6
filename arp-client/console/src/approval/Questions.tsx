//! Questions with choices; each choice with what it means.

import { useState } from 'preact/hooks';
import { t } from '../i18n';
import type { WaitingApproval } from '../net/types';
import { visible } from '../text/visible';

type Props = { approval: WaitingApproval; busy: boolean; ready: boolean; onAnswer(answers: Record<string, string>, at: number): void; onDeny(at: number): void };

export function Questions({ approval, busy, ready, onAnswer, onDeny }: Props) {
  const [chosen, setChosen] = useState<Record<string, string[]>>({});
  const [other, setOther] = useState<Record<string, string>>({});
  const questions = approval.questions ?? [];
  const answers = Object.fromEntries(
    questions.map(({ text }) => [text, [...(chosen[text] ?? []), ...(other[text]?.trim() ? [other[text].trim()] : [])].join(', ')]),
  );
  const complete = questions.every(({ text }) => answers[text]);
  return (
    <form
      class="questions"
      onSubmit={(event) => {
        event.preventDefault();
        if (complete) onAnswer(answers, event.timeStamp);
      }}
    >
      <div class="questions-list scroll">
        {questions.map(({ text, header, options, descriptions, multiple }) => (
          <fieldset key={text}>
            <legend>{header && <span class="soft">{visible(header)} · </span>}{visible(text)}</legend>
            {options.map((option, index) => {
              const on = chosen[text]?.includes(option) ?? false;
              const means = descriptions?.[index];
              return (
                <label key={option} class={on ? 'choice on' : 'choice'}>
                  <input
                    type={multiple ? 'checkbox' : 'radio'}
                    name={text}
                    checked={on}
                    onChange={() => {
                      const list = chosen[text] ?? [];
                      const next = multiple ? (on ? list.filter((one) => one !== option) : [...list, option]) : [option];
                      setChosen({ ...chosen, [text]: next });
                      if (!multiple) setOther({ ...other, [text]: '' });
                    }}
                  />
                  <span class="two"><span>{visible(option)}</span>{means && <span class="soft">{visible(means)}</span>}</span>
                </label>
              );
            })}
            <input
              type="text"
              class="field"
              placeholder={t.otherAnswer}
              aria-label={`${text} ${t.otherAnswer}`}
              value={other[text] ?? ''}
              onInput={(event) => {
                setOther({ ...other, [text]: event.currentTarget.value });
                if (!multiple && event.currentTarget.value) setChosen({ ...chosen, [text]: [] });
              }}
            />
          </fieldset>
        ))}
      </div>
      <div class="decide">
        <button type="button" class="button" disabled={busy} aria-disabled={!ready} onClick={(event) => onDeny(event.timeStamp)}>{t.deny}</button>
        <button type="submit" class="button primary" disabled={busy || !complete} aria-disabled={!ready}>{t.answer}</button>
      </div>
    </form>
  );
}
