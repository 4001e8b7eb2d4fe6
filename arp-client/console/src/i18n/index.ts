//! The language of the page, and words, dates and numbers in it.

import { computed, signal } from '@preact/signals';
import { ApiError } from '../net/api';
import type { Problem } from '../net/types';
import { langChoice } from '../model/prefs';
import { en, type Dictionary } from './en';
import { zhErrors, zhProblem } from './errors';
import { zh } from './zh';
import { named } from '../model/named';

export type Lang = 'en' | 'zh';

const browserLang = (): Lang => ((navigator.languages?.[0] ?? navigator.language ?? 'en').toLowerCase().startsWith('zh') ? 'zh' : 'en');

/** The language that is shown. */
export const lang = computed<Lang>(() => (langChoice.value === 'auto' ? browserLang() : langChoice.value));
const dictionary = computed<Dictionary>(() => (lang.value === 'zh' ? zh : en));
const locale = computed(() => (lang.value === 'zh' ? 'zh-CN' : navigator.language?.startsWith('en') ? navigator.language : 'en'));

/** The words. Read inside a component, it draws anew when the language changes. */
export const t = new Proxy({} as Dictionary, {
  get: (_, key: string) => dictionary.value[key as keyof Dictionary],
});

/** A clock for relative times; moves every 15 s, see `tick`. */
export const now = signal(Date.now());
/** A clock for elapsed times; moves every second while something runs. */
export const second = signal(Date.now());

/** Starts the clocks. They rest while the page is hidden. */
export function startClocks(): void {
  setInterval(() => {
    if (document.visibilityState === 'hidden') return;
    second.value = Date.now();
    if (second.value - now.value >= 15_000) now.value = second.value;
  }, 1000);
  document.addEventListener('visibilitychange', () => {
    now.value = second.value = Date.now();
  });
}

const cache = new Map<string, Intl.DateTimeFormat>();
function format(options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = locale.value + JSON.stringify(options);
  let made = cache.get(key);
  if (!made) cache.set(key, (made = new Intl.DateTimeFormat(locale.value, options)));
  return made;
}

/** `14:03`, or with the date if it was not today. */
export function clock(time: number): string {
  const date = new Date(time);
  const today = new Date(now.value);
  if (date.toDateString() === today.toDateString()) return format({ hour: '2-digit', minute: '2-digit' }).format(date);
  return format({ month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit' }).format(date);
}

/** How long ago, short: `now`, `5m`, `3h`, `Mon`, `12 Mar`. */
export function ago(time: number): string {
  if (!time) return '';
  const minutes = Math.floor((now.value - time) / 60_000);
  if (minutes < 1) return t.justNow;
  if (minutes < 60) return t.minutesAgo(minutes);
  if (minutes < 24 * 60) return t.hoursAgo(Math.floor(minutes / 60));
  const date = new Date(time);
  if (minutes < 6 * 24 * 60) return format({ weekday: 'short' }).format(date);
  const sameYear = date.getFullYear() === new Date(now.value).getFullYear();
  return format(sameYear ? { month: 'short', day: 'numeric' } : { year: 'numeric', month: 'short', day: 'numeric' }).format(date);
}

/** A span of time: `0.4 s`, `12 s`, `3:07`, `1:02:33`. */
export function span(ms: number): string {
  if (ms < 9_950) return t.seconds(number(Math.max(0, ms) / 1000, 1));
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return t.seconds(number(seconds));
  const two = (value: number): string => String(value).padStart(2, '0');
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}:${two(seconds % 60)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(seconds % 60)}`;
}

/** A number in the page's language. */
export function number(value: number, digits = 0): string {
  return new Intl.NumberFormat(locale.value, { maximumFractionDigits: digits }).format(value);
}

/** A large number, short: `1.2K`. */
export function short(value: number): string {
  return new Intl.NumberFormat(locale.value, { notation: 'compact', maximumFractionDigits: 1 }).format(value);
}

/** US dollars. */
export function money(value: number): string {
  const digits = value < 0.1 ? 4 : 2;
  return new Intl.NumberFormat(locale.value, { style: 'currency', currency: 'USD', currencyDisplay: 'narrowSymbol', minimumFractionDigits: 2, maximumFractionDigits: digits }).format(value);
}

/** A size in bytes. */
export function bytes(value: number): string {
  const units = ['byte', 'kilobyte', 'megabyte', 'gigabyte'] as const;
  let index = 0;
  let rest = value;
  while (rest >= 1000 && index < units.length - 1) {
    rest /= 1024;
    index++;
  }
  return new Intl.NumberFormat(locale.value, { style: 'unit', unit: units[index] ?? 'byte', maximumFractionDigits: index ? 1 : 0, unitDisplay: 'short' }).format(rest);
}

/** The part of a list by date that a time belongs to: today, yesterday, the week, then months. */
export function dayOf(time: number): string {
  const today = new Date(now.value);
  today.setHours(0, 0, 0, 0);
  const days = Math.ceil((today.getTime() - time) / 86_400_000);
  if (days <= 0) return t.today;
  if (days === 1) return t.yesterday;
  if (days <= 7) return t.lastDays;
  return format({ year: 'numeric', month: 'long' }).format(new Date(time));
}

/** What went wrong, in words for the user: in English the edge's own where it has some, else by its code. */
export function explain(error: unknown): string {
  if (!(error instanceof ApiError)) return String(error);
  if (error.status === 0) return t.unreachable;
  if (error.code === 'other_edge') return t.e_other_edge;
  return (lang.value === 'zh' ? named(zhErrors, error.code) : error.message) || error.message || t.unknownError(error.code);
}

/** Why an agent cannot be used. */
export const explainAgent = (problem: string | null): string => (problem === null ? '' : lang.value === 'zh' ? zhProblem(problem) : problem);

/** How a tunnel stands, in a word; a state that is not known as the edge calls it. */
export const tunnelWord = (state: string): string => named(t.tunnelStates as Record<string, string>, state) ?? state;

/** What went wrong with a session: in English the edge's own sentence, which says more, else by its kind. */
export function explainTrouble({ kind, message, api_status }: Problem): string {
  if (lang.value !== 'zh' && message) return message;
  const text = named(t.troubles as Record<string, string>, kind) ?? message;
  return api_status ? text + t.withStatus(api_status) : text;
}
